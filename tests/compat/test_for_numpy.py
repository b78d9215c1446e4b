import numpy as np
import pytest
from recbole.config import Config
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import LossMetric
from recbole.trainer import HyperTuning

from recbole_dsl.training.quick_start import objective_function
from tests.running import prepare

needs_2 = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 1 has what RecBole wants"
)


@needs_2
def test_a_config_leaves_numpy_as_it_is(options):
    before = set(vars(np))
    Config("BPR", "tiny", config_dict=options)
    assert set(vars(np)) <= before | {"bool"}
    assert not hasattr(np, "float")


class Difference(LossMetric):
    """A metric of a user's own."""

    def calculate_metric(self, dataobject):
        return {"difference": np.float32(0.5)}


def test_results_are_plain_numbers(options):
    metrics = [
        "Recall",
        "MRR",
        "MAP",
        "NDCG",
        "Hit",
        "Precision",
    ]
    result = objective_function({**options, "model": "BPR", "dataset": "tiny", "metrics": metrics, "epochs": 1})
    for name in ("best_valid_result", "test_result"):
        assert len(result[name]) == len(metrics)
        assert "np." not in repr(result[name])
    assert "np." not in repr(result["best_valid_score"])


@needs_2
def test_metrics_of_ones_own_are_plain_numbers(options):
    config = prepare("BPR", options)[0]
    evaluator = Evaluator(config)
    evaluator.metrics, evaluator.metric_class = ["difference"], {"difference": Difference(config)}
    result = evaluator.evaluate(None)
    assert type(result["difference"]) is float


@needs_2
def test_the_tuner_shows_plain_numbers(capsys):
    def objective(config_dict, files):
        assert type(config_dict["learning_rate"]) is float
        return {
            "model": "BPR",
            "best_valid_score": 0.1,
            "valid_score_bigger": True,
            "best_valid_result": {},
            "test_result": {},
        }

    pytest.importorskip("hyperopt")
    tuner = HyperTuning(objective, params_dict={"choice": {"learning_rate": [0.1]}}, algo="exhaustive")
    tuner.trial({"learning_rate": np.float64(0.1)})
    assert "np." not in capsys.readouterr().out
