"""Ranking by products of vectors, against the lists that RecBole ranks."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.model.general_recommender import BPR

from recbole_dsl.evaluation import full_sort, ranking, search
from recbole_dsl.evaluation.pairs import Pairs
from recbole_dsl.evaluation.product import Operands, operands_of
from recbole_dsl.evaluation.search import Search
from tests.evaluation.both import assert_equal, both
from tests.running import train
from tests.tiny import ITEMS

SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"order": "TO", "split": {"LS": "valid_and_test"}},
    "train_neg_sample_args": None,
}
METRICS = [
    *("Recall", "MRR", "NDCG", "Hit", "MAP", "Precision", "ItemCoverage"),
    *("AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"),
]


@pytest.fixture
def ranks(monkeypatch):
    """How many blocks were ranked by products, and how many users were looked up."""
    seen = SimpleNamespace(blocks=0, looked_up=0)
    top, decide = Search.top, Search._decide

    def counted(self, *args):
        seen.blocks += 1
        return top(self, *args)

    def looked_up(self, ids, undecided, *args):
        seen.looked_up += int(undecided.sum())
        return decide(self, ids, undecided, *args)

    monkeypatch.setattr(Search, "top", counted)
    monkeypatch.setattr(Search, "_decide", looked_up)
    return seen


@pytest.mark.parametrize("compiled", [False, True], ids=["blocks", "compiled"])
@pytest.mark.parametrize(
    ("model", "is_product", "more"),
    [
        ("BPR", True, {}),
        ("LightGCN", True, {"eval_batch_size": 200}),
        ("SASRec", True, {**SEQUENTIAL, "eval_batch_size": 16, "hidden_size": 8, "n_heads": 2, "inner_size": 8}),
        ("NeuMF", False, {}),
        ("MultiVAE", False, {"train_neg_sample_args": None}),
    ],
    ids=["BPR", "LightGCN", "SASRec", "NeuMF", "MultiVAE"],
)
def test_every_list_is_that_of_recbole(options, monkeypatch, ranks, model, is_product, more, compiled):
    monkeypatch.setattr(search, "_WORTH_COMPILING", 0 if compiled else 2**60)
    monkeypatch.setattr(full_sort, "_USERS", 12)
    trainer, test_data = train(
        model, {**options, "metrics": METRICS, "topk": [1, 5], "epochs": 1, "valid_metric": "MRR@5", **more}
    )
    ranks.blocks = 0
    assert_equal(*both(trainer, test_data))
    assert (ranks.blocks > 0) == is_product


@settings(max_examples=60)
@given(data=st.data(), users=st.integers(1, 9), rows=st.integers(1, 4), in_order=st.booleans())
def test_ties_are_decided_as_recbole_decides_them(data, users, rows, in_order):
    """Equal vectors, and vectors that differ by so little that it is for rounding to say which is better."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n_items, n_columns, k = (
        data.draw(st.integers(9, 200)),
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(1, 6)),
    )
    kinds = draw.normal(size=(data.draw(st.integers(1, 5)), n_columns)).astype(np.float32)
    table = kinds[draw.integers(len(kinds), size=n_items)] * draw.choice(
        np.float32([1, 1, 1 + 2**-22, 1 - 2**-23]), size=(n_items, n_columns)
    )
    vectors = draw.normal(size=(users, n_columns)).astype(np.float32) * draw.integers(0, 2, (users, 1), np.int32)
    operands = Operands(torch.from_numpy(vectors.astype(np.float32)), torch.from_numpy(table).t())
    lists = [torch.from_numpy(draw.permutation(n_items - 1)[:8] + 1) for _ in range(users)]
    left_out, positive = Pairs.of(one[:3] for one in lists), Pairs.of(one[3:] for one in lists)
    found = []
    for worth in 0, 2**60:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "_WORTH_COMPILING", worth)
            top = Search(torch.nn.Module(), k, rows, in_order, users).top(operands, left_out, positive)
            found.append(top)
    for first in range(0, users, rows):
        here = slice(first, first + rows)
        scores = operands.users[here] @ operands.items
        scores[:, 0] = -torch.inf
        for user, row in enumerate(scores):
            row[lists[first + user][:3]] = -torch.inf
        wanted = torch.topk(scores, k).indices
        for top in found:
            if in_order:
                assert top[here].equal(wanted)
            for one, other, items in zip(top[here], wanted, lists[here]):
                assert torch.isin(one, items[3:]).equal(torch.isin(other, items[3:]))


class Shifted(BPR):
    """Scores that are no product, but of some users only."""

    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction).view(len(interaction), -1)
        if int(interaction[self.USER_ID].max()) > 20:
            scores = -scores
        return scores


class Swallowing(BPR):
    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        try:
            return scores.sin()
        except Exception:
            return scores


class Drawing(BPR):
    def full_sort_predict(self, interaction):
        torch.rand(3)
        return super().full_sort_predict(interaction)


@pytest.mark.parametrize("kind", [Shifted, Swallowing, Drawing])
def test_a_model_of_ones_own_that_is_no_product_goes_the_way_of_recbole(options, monkeypatch, kind):
    monkeypatch.setattr(full_sort, "_USERS", 10)
    # a user at a time, as RecBole does
    monkeypatch.setattr(ranking, "_SCORES", ITEMS + 1)
    metrics = {"metrics": ["NDCG", "ItemCoverage"], "topk": [5], "valid_metric": "NDCG@5"}
    trainer, test_data = train("BPR", {**options, "epochs": 1, "eval_batch_size": ITEMS + 1, **metrics})
    trainer.model.__class__ = kind
    assert_equal(*both(trainer, test_data))


def test_a_trainer_of_ones_own_ranks_by_itself(options, ranks):
    trainer, test_data = train("BPR", {**options, "epochs": 1})
    seen = []

    class Own(type(trainer)):
        def _full_sort_batch_eval(self, batch):
            seen.append(batch)
            return super()._full_sort_batch_eval(batch)

    trainer.__class__ = Own
    ranks.blocks = 0
    trainer.evaluate(test_data, load_best_model=False)
    assert seen and not ranks.blocks


def test_scores_beyond_float32_go_the_way_of_recbole(options):
    trainer, test_data = train("BPR", {**options, "epochs": 1})
    for weight in trainer.sparsity.weights.values():
        weight.values.data.fill_(torch.inf)
    assert_equal(*both(trainer, test_data))


def test_nothing_of_the_size_of_all_scores_is_made(options):
    """The product is seen and not computed."""
    trainer, test_data = train("BPR", {**options, "epochs": 1})
    with torch.no_grad():
        operands = operands_of(trainer.model, test_data.user_df[[0, 1, 2]], test_data._dataset.item_num)
        scores = trainer.model.full_sort_predict(test_data.user_df[[0, 1, 2]])
    assert operands.users.shape == (3, 8) and (operands.users @ operands.items).view(-1).equal(scores)
