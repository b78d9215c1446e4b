"""At density 1 a run is that of stock RecBole, to the bit: losses, validation and test, however it evaluates."""

import logging
import random

import numpy as np
import pytest
import torch
from recbole.quick_start import run_recbole
from recbole.trainer import Trainer

from benchmarks.model_cases import CASES
from recbole_dsl import run_recbole_dsl
from tests.training.test_models import optional_packages, options_of  # noqa: F401

RANKING = {"metrics": ["Recall", "NDCG"], "topk": [10], "valid_metric": "NDCG@10"}
LABELLED = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC", "threshold": {"rating": 4}}
PARTS = {"RS": [0.8, 0.1, 0.1]}
LAST = {"LS": "valid_and_test"}


def evaluation(split, order, mode, **others):
    others = others or RANKING
    return {**others, "eval_args": {"split": split, "group_by": "user", "order": order, "mode": mode}}


EVALUATIONS = {
    "random": evaluation(PARTS, "RO", "full"),
    "random, popular": evaluation(PARTS, "RO", "pop20"),
    "random, labelled": evaluation(PARTS, "RO", "labeled", **LABELLED),
    "by time, popular": evaluation(PARTS, "TO", "pop20"),
    "by time, labelled": evaluation(PARTS, "TO", "labeled", **LABELLED),
    "the last": evaluation(LAST, "TO", "full"),
    "the last, uniform": evaluation(LAST, "TO", "uni20"),
}
# each draws its random numbers elsewhere, or has other arithmetic
FEW = [
    ("general", "BPR-dns", "random, popular", {"learner": "adagrad", "clip_grad_norm": {"max_norm": 0.1}}),
    ("general", "NeuMF", "random", {"weight_decay": 0.01, "learner": "rmsprop"}),
    ("general", "MultiVAE", "the last", {}),
    ("general", "NNCF", "the last, uniform", {}),
    ("context-aware", "DeepFM", "random, labelled", {}),
    ("sequential", "BERT4Rec", "the last", {}),
    ("sequential", "BERT4Rec-BPR", "the last, uniform", {"worker": 1}),
    ("sequential", "DIN", "by time, labelled", {}),
    ("sequential", "FEARec", "by time, popular", {}),
    ("knowledge-aware", "KGNNLS", "the last", {}),
]
ALL = [
    (family, case, name, {})
    for family, cases in CASES.items()
    for case in cases
    for name in EVALUATIONS
    if not name.startswith("random" if family == "sequential" else "by time") and case != "S3Rec-finetune"
]


@pytest.fixture
def seen(monkeypatch):
    """What trainers made: the losses of each epoch and the result of each evaluation."""
    made = []
    output, evaluate = Trainer._generate_train_loss_output, Trainer.evaluate

    def watched_output(self, epoch, start, end, losses):
        made.append(losses)
        return output(self, epoch, start, end, losses)

    def watched_evaluate(self, *args, **kwargs):
        made.append(evaluate(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(Trainer, "_generate_train_loss_output", watched_output)
    monkeypatch.setattr(Trainer, "evaluate", watched_evaluate)
    return made


@pytest.mark.parametrize(
    "family, case, evaluated, others", [*FEW, *(pytest.param(*one, marks=pytest.mark.by_hand) for one in ALL)]
)
def test_a_run_is_that_of_recbole(family, case, evaluated, others, data_path, seen):
    options = {
        **options_of(family, case, data_path),
        **{"epochs": 2, "pretrain_epochs": 2, "eval_step": 1, "save_step": 1},
        **EVALUATIONS[evaluated],
        **others,
    }
    if family == "sequential":
        options["MAX_ITEM_LIST_LENGTH"] = min(5, options.get("MAX_ITEM_LIST_LENGTH", 5))
    outcomes = []
    for run, given in ((run_recbole, options), (run_recbole_dsl, {**options, "density": 1, "update_interval": 1})):
        seen.clear()
        logging.getLogger().handlers.clear()
        # as in a new process
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(7)
        try:
            result = run(config_dict=given)
        except Exception as error:
            if run is run_recbole and others == {}:
                pytest.skip(f"RecBole itself: {type(error).__name__}: {error}")
            raise
        outcomes.append(([*seen], {name: result[name] for name in ("best_valid_result", "test_result")}))
    assert len(outcomes[0][0]) >= 3 and outcomes[1] == outcomes[0]
