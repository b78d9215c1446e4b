"""What RecBole and PyTorch fail on: one line, before the training begins or before it has got anywhere."""

import glob
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from recbole.model.general_recommender import BPR

from recbole_dsl import DSLError, DSLTrainer, run_recbole_dsl
from tests.running import prepare

SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
    "train_neg_sample_args": None,
    "hidden_size": 8,
    "inner_size": 8,
}
FEATURES = {
    **SEQUENTIAL,
    "load_col": {**SEQUENTIAL["load_col"], "item": ["item_id", "release_year", "class"]},
}
LABELED = {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"}


@pytest.mark.parametrize(
    "model, change, message",
    [
        ("BPR", {"transform": "crop_itemseq", "eta": 0.5}, "transform=crop_itemseq: must be None with BPR"),
        ("SASRec", {**SEQUENTIAL, "transform": "mask_itemseq"}, r"mask_ratio=None: must be a number in \[0, 1\]"),
        ("SASRec", {**SEQUENTIAL, "transform": "crop_itemseq"}, r"eta=None: must be a number in \[0, 1\]"),
        ("SASRec", {**SEQUENTIAL, "transform": "reorder_itemseq", "beta": 3}, r"beta=3: must be a number in"),
        ("BERT4Rec", {**SEQUENTIAL, "transform": None}, "transform=None: must be one of mask_itemseq"),
        ("BPR", LABELED, "LABEL_FIELD=label: must be a column that is loaded of .inter, or be made by threshold"),
        ("NeuMF", {"train_neg_sample_args": None}, "LABEL_FIELD=label: must be a column that is loaded"),
        ("DIN", SEQUENTIAL, "LABEL_FIELD=label: must be a column that is loaded"),
        *(
            (model, {**FEATURES, "selected_features": features}, message)
            for model in ("SASRecF", "FDSA", "GRU4RecF")
            for features, message in [
                ([], r"selected_features=\[\]: must be a list of one or more"),
                (
                    ["class", "rating"],
                    "selected_features=rating: must be a column of .item that is loaded: item_id",
                ),
                (["user_id"], "selected_features=user_id: must be a column of .item"),
            ]
        ),
        ("GRU4RecKG", {**SEQUENTIAL, "eval_args": {"order": "TO"}}, "load_col={.*: must be of kg and link too"),
        ("DMF", {"inter_matrix_type": "rating"}, "RATING_FIELD=rating: must be a column that is loaded of .inter"),
        (
            "FM",
            {**FEATURES, "threshold": {"rating": 4}, "numerical_features": ["release_year"]},
            "numerical_features=release_year: must be a column of type float, and is token",
        ),
        ("S3Rec", {**FEATURES, "item_attribute": "rating"}, "item_attribute=rating: must be a column of .item"),
    ],
)
def test_what_no_step_could_be_made_with_is_refused_before_anything_is_written(options, model, change, message):
    with pytest.raises(DSLError, match=f"^{message}"):
        run_recbole_dsl(model, "tiny", config_dict={**options, **change})
    assert os.listdir() == []


@pytest.mark.parametrize(
    "model, change", [("NeuMF", {"train_neg_sample_args": None}), ("BPR", LABELED), ("FM", {})]
)
def test_labels_that_are_none_are_refused(options, model, change):
    change = {"load_col": SEQUENTIAL["load_col"], "LABEL_FIELD": "rating", **change}
    with pytest.raises(
        DSLError, match=r"^LABEL_FIELD=rating: must be a column of numbers in \[0, 1\], and has [35]"
    ):
        run_recbole_dsl(model, "tiny", config_dict={**options, **change})
    assert not glob.glob("saved/*")


def test_ratings_may_be_labels_where_nothing_takes_them_for_clicks(options):
    change = {"load_col": SEQUENTIAL["load_col"], "LABEL_FIELD": "rating", **LABELED}
    change |= {"metrics": ["RMSE"], "valid_metric": "RMSE"}
    assert (
        run_recbole_dsl("BPR", "tiny", config_dict={**options, **change}, saved=False)["test_result"]["rmse"] > 0
    )


def write_parts(folder, kind="token_seq", longest=5, shortest=1):
    """The dataset "parts" in ``folder``: users, their histories and the next items, divided beforehand."""
    draw = random.Random(0)
    folder = Path(folder) / "parts"
    folder.mkdir(parents=True)
    for part, n in (("train", 120), ("valid", 20), ("test", 20)):
        lines = [f"user_id:token\titem_id_list:{kind}\titem_id:token"]
        for line in range(n):
            length = (shortest, longest)[line] if line < 2 else draw.randint(shortest, longest)
            items = [str(draw.randrange(30)) for _ in range(length + 1)]
            lines.append(f"u{draw.randrange(20)}\t{' '.join(items[1:])}\t{items[0]}")
        (folder / f"parts.{part}.inter").write_text("\n".join(lines) + "\n")


PARTS = {
    "load_col": None,
    "benchmark_filename": ["train", "valid", "test"],
    "alias_of_item_id": ["item_id_list"],
    "data_path": "data",
    "epochs": 1,
}
NEGATIVES = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}


@pytest.mark.parametrize(
    "model, written, change, message",
    [
        ("SASRec", {}, {"alias_of_item_id": None}, r"alias_of_item_id=None: must be \['item_id_list'\]"),
        ("SASRec", {"longest": 60}, {}, "MAX_ITEM_LIST_LENGTH=50: must be at least 60, the length of the longest"),
        ("SASRec", {}, {"MAX_ITEM_LIST_LENGTH": 3}, "MAX_ITEM_LIST_LENGTH=3: must be at least 5"),
        ("SASRec", {"shortest": 0}, {}, "dataset=parts: item_id_list is empty in a line"),
        ("SASRec", {"kind": "float_seq"}, {}, ".*of each line, item_id_list:token_seq"),
        ("SASRec", {}, {"LIST_SUFFIX": "_past"}, ".*of each line, item_id_past:token_seq"),
        (
            "SASRec",
            {},
            {"load_col": {"inter": ["user_id", "item_id"]}},
            "alias_of_item_id=item_id_list: must be a co",
        ),
        ("DIN", {}, NEGATIVES, "MAX_ITEM_LIST_LENGTH=50: must be 5, the length of the longest item_id_list"),
        ("DIEN", {}, NEGATIVES, "benchmark_filename=.*: must be None with DIEN"),
    ],
)
def test_histories_that_recbole_would_read_as_something_else_are_refused(options, model, written, change, message):
    write_parts("data", **written)
    with pytest.raises(DSLError, match=f"^{message}"):
        run_recbole_dsl(model, "parts", config_dict={**options, **SEQUENTIAL, **PARTS, **change})
    assert not glob.glob("saved/*")


@pytest.mark.parametrize("model", ["SASRec", "DIN", "Caser", "HGN", "SINE", "FEARec", "RepeatNet", "FOSSIL"])
def test_histories_of_the_allowed_length_are_trained_on(options, model):
    write_parts("data")
    change = {**PARTS, "MAX_ITEM_LIST_LENGTH": 5, **(NEGATIVES if model == "DIN" else {})}
    result = run_recbole_dsl(model, "parts", config_dict={**options, **SEQUENTIAL, **change}, saved=False)
    assert result["test_result"]


def run_failing(options, model="BPR", **change):
    with pytest.raises(Exception) as caught:
        run_recbole_dsl(model, "tiny", config_dict={**options, **change}, saved=False)
    return caught.value


@pytest.mark.parametrize(
    "model, change, cause",
    [
        # RecBole's own transform returns nothing: an AttributeError of a loader
        ("SASRec", {**SEQUENTIAL, "transform": "user_defined"}, AttributeError),
        # PyTorch has no product of sparse matrices in half precision
        ("LightGCN", {"fast_graph": False, "enable_amp": True}, RuntimeError),
        # the same error out of a worker
        ("BPR", {"transform": "user_defined", "worker": 1}, TypeError),
    ],
)
def test_a_first_step_that_fails_in_recbole_ends_in_one_line_with_class_and_place(options, model, change, cause):
    error = run_failing(options, model, **change)
    assert type(error) is DSLError and type(error.__cause__) is cause
    assert str(error).startswith(f"model={model}: the first training step fails: {cause.__name__}: ")
    assert "(recbole." in str(error) and "line" in str(error) and "\n" not in str(error)


class Raises(BPR):
    def calculate_loss(self, interaction):
        return interaction["nothing"]


class Returns(BPR):
    """Its bug shows in RecBole's code alone."""

    def calculate_loss(self, interaction):
        return None


@pytest.mark.parametrize("model, kind", [(Raises, KeyError), (Returns, AttributeError)])
def test_a_bug_of_ones_own_model_keeps_its_traceback(options, model, kind):
    error = run_failing(options, model)
    assert type(error) is kind and error.__cause__ is None


def mine(*_):
    raise KeyError("mine")


@pytest.mark.parametrize("place", ["optimizer", "metric"])
def test_so_does_a_bug_of_ones_own_around_a_model_of_recboles(options, place):
    config, model, train_data, valid_data, _ = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    if place == "optimizer":
        trainer.optimizer.register_step_pre_hook(mine)
    else:
        trainer.evaluator = SimpleNamespace(evaluate=mine)
    with pytest.raises(KeyError, match="mine"):
        trainer.fit(train_data, valid_data, saved=False)


def test_what_fails_after_the_first_step_keeps_its_traceback(options):
    config, model, train_data, *_ = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    check = trainer._check_nan
    trainer._check_nan = lambda loss: check(loss if trainer.topology.step < 2 else None)
    with pytest.raises(TypeError):
        trainer.fit(train_data, saved=False)


def test_a_loss_that_is_no_number_is_one_line_at_any_step(options):
    config, model, train_data, *_ = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    check = trainer._check_nan
    trainer._check_nan = lambda loss: check(loss * (torch.nan if trainer.topology.step == 2 else 1))
    with pytest.raises(DSLError, match=r"^learning_rate=0.01: must be smaller, .* not a number after 2 steps$"):
        trainer.fit(train_data, saved=False)
