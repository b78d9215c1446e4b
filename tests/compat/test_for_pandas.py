import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset
from recbole.data.dataset import dataset
from recbole.data.interaction import Interaction


@pytest.fixture
def gaps(tmp_path):
    """The dataset "gaps": features with missing values of every type."""
    folder = tmp_path / "gaps"
    folder.mkdir()
    (folder / "gaps.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ntags:token_seq\n".replace("\ntags", "\ttags")
        + "a\tx\t1\tp q\na\ty\t\tq\nb\tx\t4\t\nb\tz\t\tp\n"
    )
    (folder / "gaps.item").write_text(
        "item_id:token\tcolour:token\tweight:float\tsizes:float_seq\n"
        "x\tred\t1.5\t1 2 3\ny\t\t\t\nz\tblue\t2.5\t5\n"
    )
    return {
        "data_path": str(tmp_path),
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "tags"],
            "item": ["item_id", "colour", "weight", "sizes"],
        },
    }


def load(options, model="BPR", **more):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "(?s).*chained assignment", FutureWarning)
        warnings.simplefilter("error", UserWarning)
        if hasattr(pd.errors, "ChainedAssignmentError"):
            warnings.simplefilter("error", pd.errors.ChainedAssignmentError)
        data = create_dataset(Config(model, "gaps", config_dict={**options, **more}))
        if model != "SASRec":
            data._change_feat_format()
        return data


def test_missing_values_are_filled_without_a_warning(gaps):
    data = load(gaps)
    assert data.inter_feat["rating"].tolist() == [1, 2.5, 4, 2.5]
    tags = data.field2id_token["tags"]
    assert [[tags[i] for i in row if i] for row in data.inter_feat["tags"]] == [["p", "q"], ["q"], [], ["p"]]
    colours = data.field2id_token["colour"]
    assert [str(colours[i]) for i in data.item_feat["colour"]] == ["[PAD]", "red", "[PAD]", "blue"]
    assert data.item_feat["weight"].tolist() == [2, 1.5, 2, 2.5]
    assert data.item_feat["sizes"].tolist() == [[0, 0, 0], [1, 2, 3], [0, 0, 0], [5, 0, 0]]


def test_sequences_are_cut_at_their_own_lengths(gaps):
    sizes = load(gaps, normalize_field=["sizes"]).item_feat["sizes"]
    np.testing.assert_allclose(sizes, [[0, 0, 0], [0, 0.25, 0.5], [0, 0, 0], [1, 0, 0]])


def test_discretised_sequences(gaps):
    buckets = {"sizes": {"method": "ED", "bucket": 4}}
    more = {"numerical_features": ["sizes"], "discretization": buckets}
    sizes = load(gaps, "FM", **more).item_feat["sizes"]
    assert sizes[..., 1].tolist() == [[0, 0, 0], [1, 1, 2], [0, 0, 0], [4, 0, 0]]


def test_histories_that_a_file_brings_have_their_lengths(tmp_path):
    folder = tmp_path / "gaps"
    folder.mkdir()
    for part, rows in {"train": "a\tx y\tz\nb\tx\ty\n", "valid": "a\tx y z\tx\n", "test": "b\tx y\tz\n"}.items():
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
        (folder / f"gaps.{part}.inter").write_text(header + rows)
    options = {
        "data_path": str(tmp_path),
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "train_neg_sample_args": None,
    }
    assert load(options, "SASRec").inter_feat["item_length"].tolist() == [2, 1, 3, 2]


def test_an_interaction_does_not_write_into_the_frame():
    frame = pd.DataFrame({"item_id": [1, 2], "rating": [0.5, 1.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        interaction = Interaction(frame)
    if frame["item_id"].values.flags.writeable:
        pytest.skip("values can be written to before pandas 3")
    interaction["item_id"][0] = 7
    assert frame["item_id"].tolist() == [1, 2]


CELL = st.text(st.sampled_from("ab1.e-' \\é#,"), max_size=4) | st.sampled_from(["", "nan", "NA", "1.1", "1e-7"])
ODD = st.sampled_from(["", "", "", '"', "\0", "\r"])


@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(st.lists(CELL, min_size=2, max_size=4).map("\t".join), min_size=1, max_size=6),
    as_numbers=st.booleans(),
    end=st.sampled_from(["", "\n", "\r\n"]),
    odd=ODD,
)
def test_files_are_read_as_by_the_parser_that_recbole_asks_for(tmp_path_factory, lines, as_numbers, end, odd):
    file = tmp_path_factory.getbasetemp() / "drawn.inter"
    between = end or "\n"
    file.write_bytes((f"a:token\tb:float\tc:token{between}{between.join(lines)}{odd}{end}").encode())
    options = {
        "delimiter": "\t",
        "usecols": ["a:token", "b:float"],
        "dtype": {"a:token": str, "b:float": np.float64 if as_numbers else str},
        "encoding": "utf-8",
        "engine": "python",
    }
    frames = []
    for read in pd.read_csv, dataset.pd.read_csv:
        try:
            frames.append(read(str(file), **options))
        except Exception as error:
            frames.append(str(type(error)))
    if str in map(type, frames):
        assert frames[0] is frames[1] or frames[0] == frames[1]
    else:
        pd.testing.assert_frame_equal(*frames, check_exact=True)
