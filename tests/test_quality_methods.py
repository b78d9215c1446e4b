"""What benchmarks.quality changes in our recipe to see what each part gives."""

from pathlib import Path

import pytest
import torch

from benchmarks.quality_lines import read_lines, score
from benchmarks.quality_methods import ABLATIONS, METHODS, Case
from benchmarks.quality_runs import options_of
from benchmarks.sides import load, make_config

LINES = Path(__file__).parent.parent / "results" / "quality.jsonl"
STARTS = "ours_unrotated", "ours_all_factors", "ours_unshrunk", "ours_damping", "ours_unrepeated"


def result_of(line):
    return line["model"], line["dataset"], line["density"], score(line, "valid"), score(line, "test")


def n_weights(trainer):
    return sum(parameter.numel() for parameter in trainer.model.parameters())


@pytest.mark.parametrize(
    "model, changed",
    [("BPR", STARTS[:4]), ("MultiVAE", STARTS[4:])],
)
def test_another_start_is_not_the_one_of_the_cache(tmp_path, model, changed):
    """Each change of the start changes it, though the cache holds ours."""
    places = {"checkpoint_dir": str(tmp_path), "data_cache": str(tmp_path / "cache")}
    config = make_config(model, "ml-100k", {**options_of(model, "ml-100k"), **places, "density": 0.1})
    data = load(config)

    def start_of(method):
        data[0]._dataset.config["data_cache"] = places["data_cache"]
        trainer = method(Case(config, data, dict))
        trainer._start_weights(data[0])
        return {name: weight.dense().detach() for name, weight in trainer.sparsity.weights.items()}

    def is_same(one, other):
        return all(torch.equal(one[name], other[name]) for name in one)

    ours = start_of(METHODS["ours"])
    assert is_same(start_of(METHODS["ours"]), ours)
    for name in changed:
        assert not is_same(start_of(ABLATIONS[name]), ours), name


def test_no_committed_line_of_another_start_is_that_of_ours():
    lines = read_lines(LINES)
    ours = {result_of(line) for line in lines if line["method"] == "ours"}
    others = [line for line in lines if line["method"] in STARTS]
    assert {line["method"] for line in others} == set(STARTS)
    assert not [line for line in others if result_of(line) in ours]


@pytest.mark.parametrize("model, table", [("SASRec", "item_embedding.weight"), ("BPR", "user_embedding.weight")])
def test_a_wide_model_has_as_many_weights_as_ours_in_tables_twice_as_wide(tmp_path, model, table):
    config = make_config(
        model, "ml-100k", {**options_of(model, "ml-100k"), "density": 0.1, "checkpoint_dir": str(tmp_path)}
    )
    data = load(config)
    ours, wide = (METHODS[method](Case(config, data, dict)) for method in ("ours", "ours_wide"))
    usual, doubled = (trainer.sparsity.weights[table] for trainer in (ours, wide))
    assert doubled.n_columns == 2 * usual.n_columns
    assert n_weights(wide) == n_weights(ours)
    assert wide.dsl_config.sparse_init == ours.dsl_config.sparse_init
    assert wide.sparsity.dropout == ours.sparsity.dropout


def test_a_narrow_model_with_our_dropout_is_narrow_and_has_it(tmp_path):
    options = {**options_of("SASRec", "ml-100k"), "density": 0.1, "checkpoint_dir": str(tmp_path)}
    data = load(make_config("SASRec", "ml-100k", options))
    # a method changes the config of its case
    ours, usual, narrow = (
        METHODS[method](Case(make_config("SASRec", "ml-100k", options), data, dict))
        for method in ("ours", "small_deployed_svd", "small_deployed_svd_dropout")
    )
    assert narrow.sparsity.dropout == ours.sparsity.dropout != usual.sparsity.dropout
    rates = {module.p for module in narrow.model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == set(ours.sparsity.dropout.values())
    shapes = [{name: p.shape for name, p in one.model.named_parameters()} for one in (usual, narrow)]
    assert shapes[0] == shapes[1]
