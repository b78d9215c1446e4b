"""What benchmarks.quality changes in our recipe to see what each part gives."""

import pytest
import torch

from benchmarks.quality_methods import ABLATIONS, METHODS, Case
from benchmarks.quality_runs import options_of
from benchmarks.sides import load, make_config


@pytest.mark.parametrize(
    "model, changed",
    [
        ("BPR", ["ours_unrotated", "ours_all_factors", "ours_unshrunk", "ours_damping"]),
        ("MultiVAE", ["ours_unrepeated"]),
    ],
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
