import copy
import glob
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import load_data_and_model, run_recbole
from scipy.sparse import csc_matrix, csr_matrix, lil_matrix

from recbole_dsl import DSLError
from recbole_dsl.compat.pickle_protocol import as_protocol_2
from recbole_dsl.compat.saved_arrays import SavedType

CODE = "__import__('pathlib').Path('ran').touch()"


class Touches:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("ran").absolute(),))


@pytest.fixture
def dense(options):
    return {k: v for k, v in options.items() if k not in ("density", "update_interval")} | {"epochs": 1}


@pytest.fixture
def stock_file(dense):
    run_recbole("BPR", "tiny", config_dict=dense)
    (file,) = glob.glob("saved/BPR-*.pth")
    return file


def changed(file, change):
    """Another file, in which ``change`` has changed the content."""
    content = torch.load(file)
    content["config"] = copy.copy(content["config"])
    content["config"].final_config_dict = dict(content["config"].final_config_dict)
    change(content)
    torch.save(content, "changed.pth")
    return "changed.pth"


def option(name, value):
    return lambda content: content["config"].final_config_dict.update({name: value})


def loaded(file):
    """What comes of it, once by RecBole's quick start, once by a script's own hands; errors are as good."""
    folders = {*os.listdir(), *os.listdir("saved")}
    for load in (load_data_and_model, by_hand):
        try:
            load(file)
        except (DSLError, pickle.UnpicklingError, ValueError, TypeError, AttributeError) as error:
            assert "\n" not in str(error) or not isinstance(error, DSLError)
    assert not os.path.exists("ran")
    assert {*os.listdir(), *os.listdir("saved")} <= folders | {"log", "log_tensorboard"}


def by_hand(file):
    config = torch.load(file)["config"]
    data_preparation(config, create_dataset(config))


@pytest.mark.parametrize("name", ["dataset_save_path", "dataloaders_save_path", "checkpoint_dir", "dataset"])
def test_no_pickle_is_read_that_a_file_names(stock_file, name):
    Path("elsewhere").mkdir()
    for pickled in ("tiny-Dataset.pth", "tiny-for-BPR-dataloader.pth"):
        Path("elsewhere", pickled).write_bytes(pickle.dumps([(Touches(), None)] * 3))
    value = {"checkpoint_dir": "elsewhere", "dataset": "../elsewhere/tiny"}.get(name, "elsewhere/tiny-Dataset.pth")
    loaded(changed(stock_file, option(name, value)))


def test_no_pickle_is_read_that_lies_in_the_usual_place(stock_file):
    for pickled in ("tiny-Dataset.pth", "tiny-for-BPR-dataloader.pth"):
        Path("saved", pickled).write_bytes(pickle.dumps([(Touches(), None)] * 3))
    config, *_ = load_data_and_model(stock_file)
    assert not os.path.exists("ran")
    assert config["checkpoint_dir"] == "saved"


@pytest.mark.parametrize(
    "name, value",
    [
        ("save_dataset", True),
        ("save_dataloaders", True),
        ("model", "../../model"),
        ("model", CODE),
        ("dataset", ".."),
        ("device", CODE),
        ("learning_rate", CODE),
        ("single_spec", False),
        ("data_path", "downloaded"),
    ],
)
def test_what_a_file_says_is_neither_run_nor_a_place_to_write_to(stock_file, name, value):
    loaded(changed(stock_file, lambda c: [option("checkpoint_dir", "given")(c), option(name, value)(c)]))


def test_a_known_dataset_is_not_downloaded_to_where_a_file_says(stock_file):
    def change(content):
        option("dataset", "ml-1m")(content)
        option("data_path", "downloaded")(content)

    with pytest.raises(DSLError, match="dataset=ml-1m: must be a folder of atomic files at downloaded"):
        load_data_and_model(changed(stock_file, change))


def test_a_config_takes_no_attribute_but_its_own(stock_file):
    file = changed(stock_file, lambda content: vars(content["config"]).update(_init_device=1, compatible=CODE))
    assert not {"_init_device", "compatible"} & vars(load_data_and_model(file)[0]).keys()


def test_a_model_takes_no_attribute_that_it_does_not_list(stock_file):
    file = changed(stock_file, lambda content: content.update(other_parameter={"predict": csr_matrix((1, 1))}))
    with pytest.raises(DSLError, match="other_parameter=predict: must be data that BPR lists as such"):
        load_data_and_model(file)


@pytest.mark.parametrize("teacher", [CODE, "nn", "print", "KD_DAGFM.__init__", "CrossNet"])
def test_a_teacher_is_a_name(dense, teacher):
    load_col = {"inter": ["user_id", "item_id", "rating"]}
    run_recbole(
        "KD_DAGFM",
        "tiny",
        config_dict={
            **dense,
            "load_col": load_col,
            "phase": "teacher_training",
            "threshold": {"rating": 4},
            "train_neg_sample_args": None,
            "metrics": ["AUC"],
            "valid_metric": "AUC",
            "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
        },
    )
    (file,) = glob.glob("saved/KD_DAGFM-*.pth")
    file = changed(file, option("teacher", teacher))
    if teacher == "CrossNet":
        assert type(load_data_and_model(file)[1].teacher_network).__name__ == "CrossNet"
        return
    with pytest.raises(DSLError, match=r"teacher=.*: must be one of"):
        load_data_and_model(file)
    assert not os.path.exists("ran")


matrices = [
    np.matrix([[1.0, 2.0]]),
    *(kind([[0, 1.5], [2.5, 0]]) for kind in (csr_matrix, csc_matrix, lil_matrix)),
]
arrays = [
    np.arange(6.0).reshape(2, 3),
    np.array(["a", "bcd"]),
    np.zeros(0),
    np.array([[1], [2, 3]], object),
    np.float32(0.5),
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("value", [*matrices, *arrays, np.array([1, 2], ">i4"), np.asfortranarray(np.eye(3)[:2])])
def test_arrays_come_back_as_they_were(value, protocol):
    torch.save([value], "value.pth", pickle_protocol=protocol)
    (found,) = torch.load(as_protocol_2("value.pth"))
    assert isinstance(found, type(value))
    if hasattr(value, "toarray"):
        assert type(found) is type(value)
        found, value = found.toarray(), value.toarray()
    # NumPy itself turns the bytes round
    assert found.dtype == value.dtype.newbyteorder("=")
    assert np.asarray(found).tolist() == np.asarray(value).tolist()
    # and go into a file that anybody reads
    assert b"recbole_dsl" not in pickle.dumps(found)


class Forged:
    def __init__(self, make, arguments, state):
        self.reduced = (make, arguments, state)

    def __reduce__(self):
        return self.reduced


FLAGGED = Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
FIELDS = Forged(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))


@pytest.mark.parametrize("forged", [FLAGGED, FIELDS])
def test_bytes_are_no_pointers(forged):
    array = Forged(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, (1,), forged, False, b"A" * 8))
    for value in (array, Forged(np._core.multiarray.scalar, (forged, b"A" * 8), None), forged):
        torch.save([value], "forged.pth")
        try:
            found = torch.load("forged.pth")
        except (pickle.UnpicklingError, TypeError, ValueError):
            continue
        assert isinstance(found[0], SavedType)


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=3), st.lists(st.integers(-9, 9), min_size=2, max_size=2))
def test_indices_stay_within_a_matrix(offsets, indices):
    matrix = csr_matrix(np.eye(2))
    matrix.indptr, matrix.indices = np.array(offsets, np.int32), np.array(indices, np.int32)
    torch.save(matrix, "matrix.pth")
    try:
        found = torch.load("matrix.pth")
    except ValueError:
        return
    assert (found @ np.ones(2)).shape == (2,)
    found.check_format(full_check=True)
