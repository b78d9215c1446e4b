from itertools import chain, combinations

import numpy as np
import pytest
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.trainer import Trainer

from recbole_dsl import run_recbole_dsl
from tests.running import metrics, prepare

METRICS = ("NDCG", "ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage", "ShannonEntropy")
TOPK = [3, 10]


@pytest.fixture(scope="module")
def evaluated(data_path):
    """A stock trainer, its data, and the items that it recommends to each user of the test data."""
    options = {"data_path": data_path, "load_col": {"inter": ["user_id", "item_id"]}, "epochs": 1}
    options |= {"topk": TOPK, "tail_ratio": 0.3, "metric_decimal_place": 10, "show_progress": False}
    config, model, train_data, _, test_data = prepare("BPR", options)
    trainer = Trainer(config, model)
    trainer.fit(train_data, saved=False)
    lists = []
    for users, (rows, seen), _, _ in test_data:
        scores = model.full_sort_predict(users).view(len(users), -1).clone()
        scores[:, 0] = scores[rows, seen] = -torch.inf
        lists.append(scores.topk(max(TOPK)).indices)
    return trainer, train_data, test_data, torch.cat(lists).numpy()


def by_definition(lists, trained, n_items, tail_ratio):
    """The metrics of lists of items (users, k), from their formulas."""
    popularity = np.bincount(trained, minlength=n_items)
    known = np.flatnonzero(popularity)
    tail = sorted(known, key=lambda item: (popularity[item], item))[: max(int(len(known) * tail_ratio), 1)]
    times = np.sort(np.bincount(lists.ravel(), minlength=n_items))
    order = np.arange(1, n_items + 1)
    shares = times[times > 0] / lists.size
    return {
        "itemcoverage": (times > 0).sum() / n_items,
        "giniindex": ((2 * order - n_items - 1) * times).sum() / (n_items * times.sum()),
        "averagepopularity": popularity[lists].mean(),
        "tailpercentage": np.isin(lists, tail).mean(),
        "shannonentropy": -(shares * np.log(shares)).sum() / len(shares),
    }


def test_metrics_of_items_are_what_their_formulas_say_in_every_combination(evaluated):
    trainer, train_data, test_data, lists = evaluated
    items = train_data.dataset.inter_feat["item_id"].numpy()
    expected = {
        f"{name}@{k}": value
        for k in TOPK
        for name, value in by_definition(lists[:, :k], items, train_data.dataset.item_num, 0.3).items()
    }
    for chosen in chain.from_iterable(combinations(METRICS, n) for n in range(1, len(METRICS) + 1)):
        trainer.config["metrics"] = list(chosen)
        trainer.eval_collector, trainer.evaluator = Collector(trainer.config), Evaluator(trainer.config)
        trainer.eval_collector.data_collect(train_data)
        # validated after one epoch and again after the next
        for _ in range(2):
            result = trainer.evaluate(test_data, load_best_model=False)
        assert list(result) == [f"{name.lower()}@{k}" for name in chosen for k in TOPK]
        for name in result.keys() & expected.keys():
            assert result[name] == pytest.approx(expected[name], abs=1e-9), name


def test_a_run_that_was_finished_is_tested_again_with_them(options):
    options = {**options, "metrics": ["ItemCoverage", "TailPercentage"], "valid_metric": "ItemCoverage@10"}
    first = run_recbole_dsl("BPR", "tiny", config_dict=options)
    again = run_recbole_dsl("BPR", "tiny", config_dict={**options, "resume": True})
    assert metrics(again) == metrics(first)
