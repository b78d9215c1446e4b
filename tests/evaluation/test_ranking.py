"""Evaluation in bounded batches, against RecBole's own."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.evaluator import Collector
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_dsl.evaluation import ranking
from recbole_dsl.evaluation.ranking import RankingCollector, in_bounded_batches
from tests.running import prepare, train
from tests.tiny import ITEMS

TOPK = ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"]
LEAVE_ONE_OUT = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"order": "TO", "split": {"LS": "valid_and_test"}},
    "train_neg_sample_args": None,
}
LABELED = {
    "load_col": {"inter": ["user_id", "item_id", "rating"]},
    "threshold": {"rating": 4},
    "eval_args": {"mode": "labeled"},
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
}


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("BPR", {"metrics": [*TOPK, "GAUC"]}),
        ("NeuMF", {"metrics": [*TOPK, "ShannonEntropy"]}),
        ("LightGCN", {}),
        ("BPR", {"eval_args": {"mode": "uni10"}}),
        ("SASRec", LEAVE_ONE_OUT),
        ("FM", LABELED),
    ],
    ids=["every score", "by pairs", "graph", "sampled", "sequential", "labeled"],
)
def test_the_metrics_are_those_of_recbole(options, monkeypatch, model, more):
    trainer, test_data = train(
        model, {**options, "metrics": TOPK, "topk": [1, 5], "epochs": 2, "valid_metric": "MRR@5", **more}
    )
    found = []
    for scores in 1, 3 * ITEMS + 3, 2**20:
        monkeypatch.setattr(ranking, "_SCORES", scores)
        init_seed(0, True)
        found.append(trainer.evaluate(test_data))
    trainer.eval_collector = Collector(trainer.config)
    trainer.eval_collector.data_collect(trainer.train_data)
    init_seed(0, True)
    expected = Trainer.evaluate(trainer, test_data, load_best_model=False)
    assert found == [expected] * 3


def test_no_batch_has_more_scores_than_the_bound(options, monkeypatch):
    test_data = prepare("BPR", {**options, "eval_batch_size": 10**6})[-1]
    monkeypatch.setattr(ranking, "_SCORES", 4 * (ITEMS + 1))
    sizes = [len(batch[0]) for batch in in_bounded_batches(test_data)]
    assert max(sizes) == 4 and sum(sizes) == test_data.sample_size


def test_a_loader_of_ones_own_keeps_its_batches(options):
    class Own(FullSortEvalDataLoader):
        pass

    test_data = prepare("BPR", options)[-1]
    test_data.__class__ = Own
    assert in_bounded_batches(test_data) is test_data


@settings(max_examples=60, deadline=None)
@given(data=st.data(), users=st.integers(1, 6), items=st.integers(5, 12))
def test_what_is_collected_is_what_recbole_collects(data, users, items):
    """Ties and positive items that stand there twice too."""
    cells = st.lists(st.integers(0, 3), min_size=users * items, max_size=users * items)
    scores = torch.tensor(data.draw(cells), dtype=torch.float32).view(users, items)
    pairs = st.tuples(st.integers(0, users - 1), st.integers(1, items - 1))
    positive = torch.tensor(sorted(data.draw(st.lists(pairs, min_size=1, max_size=20)))).T
    config = {"eval_args": {"mode": "full"}, "topk": [2, 4], "device": "cpu", "metrics": ["NDCG", "ItemCoverage"]}
    collected = []
    for kind in Collector, RankingCollector:
        collector = kind(config)
        collector.register = SimpleNamespace(need={"rec.items", "rec.topk"}.__contains__)
        collector.eval_batch_collect(scores, None, *positive)
        collected.append(collector.data_struct)
    for name in "rec.items", "rec.topk":
        assert collected[0].get(name).equal(collected[1].get(name))
