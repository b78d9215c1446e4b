"""Sampled negative items in blocks, against those that RecBole draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.model.general_recommender import BPR

from recbole_dsl import run_recbole_dsl
from recbole_dsl.evaluation import sampled
from recbole_dsl.training import trainer as trainer_module
from tests.evaluation.both import assert_equal, both
from tests.running import train

LAST = {"order": "RO", "split": {"LS": "valid_and_test"}}
RATIO = {"order": "RO", "split": {"RS": [0.6, 0.2, 0.2]}}
LISTS = {"metrics": ["NDCG", "MAP", "ItemCoverage", "GAUC"], "topk": [1, 5], "valid_metric": "NDCG@5"}
PAIRS = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
SEQUENTIAL = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "train_neg_sample_args": None,
    **{"hidden_size": 8, "n_heads": 2, "inner_size": 8},
}


@pytest.fixture
def blocks(monkeypatch):
    """The blocks that were ranked."""
    seen = []
    usual = sampled.rank

    def rank(trainer, block):
        seen.append(block)
        return usual(trainer, block)

    monkeypatch.setattr(trainer_module, "rank", rank)
    return seen


@pytest.mark.parametrize(
    ("model", "args", "more"),
    [
        ("BPR", {**LAST, "mode": "uni10"}, LISTS),
        ("BPR", {**RATIO, "mode": "pop10"}, LISTS),
        # fewer candidates than are ranked
        ("BPR", {**LAST, "mode": "uni2"}, LISTS),
        ("NeuMF", {**RATIO, "mode": "uni40"}, {**LISTS, "eval_batch_size": 300}),
        ("BPR", {**LAST, "mode": "uni10"}, PAIRS),
        ("SASRec", {**LAST, "order": "TO", "mode": "uni10"}, {**LISTS, **SEQUENTIAL}),
        ("BPR", {**LAST, "mode": "pop5"}, {**LISTS, "load_col": None}),
    ],
    ids=["uniform", "popular", "few", "by pairs", "values", "sequential", "features"],
)
@pytest.mark.parametrize("dense", [0, 4])
def test_metrics_and_random_numbers_are_those_of_recbole(options, monkeypatch, blocks, model, args, more, dense):
    monkeypatch.setattr(sampled, "_PAIRS", 100)
    monkeypatch.setattr(sampled, "_DENSE", dense)
    trainer, test_data = train(model, {**options, "epochs": 1, "eval_args": args, **more})
    blocks.clear()
    assert_equal(*both(trainer, test_data))
    assert len(blocks) > 1


@pytest.mark.parametrize(("model", "more"), [("BPR", {}), ("SASRec", SEQUENTIAL)])
@pytest.mark.parametrize("metrics", [["NDCG", "GAUC"], ["NDCG", "MAP"], ["NDCG", "ItemCoverage"]])
@pytest.mark.parametrize("dense", [0, 4])
def test_equal_scores_are_decided_as_recbole_decides_them(options, monkeypatch, model, more, metrics, dense):
    monkeypatch.setattr(sampled, "_DENSE", dense)
    args = {**LAST, "order": "TO" if more else "RO", "mode": "uni20"}
    trainer, test_data = train(
        model, {**options, "epochs": 1, "eval_args": args, **LISTS, "metrics": metrics, **more}
    )
    for weight in trainer.sparsity.weights.values():
        weight.values.data.copy_(weight.values.data.round(decimals=1))
    assert_equal(*both(trainer, test_data))


@pytest.mark.parametrize(
    ("model", "args", "more"),
    [
        ("BPR", RATIO, {"embedding_size": 8}),
        ("LightGCN", RATIO, {"embedding_size": 8}),
        ("SASRec", {**LAST, "order": "TO"}, SEQUENTIAL),
        # rows of one user have histories of their own
        ("GRU4Rec", {**RATIO, "order": "TO", "group_by": "user"}, {**SEQUENTIAL, "embedding_size": 8}),
    ],
    ids=["table", "graph", "sequence", "several histories"],
)
@pytest.mark.parametrize("dense", [0, 4, 10**6])
def test_candidates_are_scored_by_products_of_vectors(options, monkeypatch, model, args, more, dense):
    monkeypatch.setattr(sampled, "_DENSE", dense)
    lists = {**LISTS, "metrics": ["NDCG", "MAP"], **more}
    trainer, test_data = train(model, {**options, "epochs": 1, "eval_args": {**args, "mode": "uni30"}, **lists})
    predicted, usual = [], trainer.model.predict
    trainer.model.predict = lambda interaction: (predicted.append(len(interaction)), usual(interaction))[1]
    trainer.evaluate(test_data, load_best_model=False)
    assert sum(predicted) <= 64 < 31 * len(test_data.dataset)
    assert_equal(*both(trainer, test_data))


def test_what_predict_adds_to_a_product_counts(options):
    class Own(BPR):
        def predict(self, interaction):
            return super().predict(interaction) - interaction["item_id"]

    class Hidden(BPR):
        def forward(self, user, item):
            users, items = super().forward(user, item)
            # the same for nearly all
            return users, items * (1 + (item == 7).float()[:, None])

    lists = {**LISTS, "metrics": ["NDCG", "MAP"], "eval_args": {**RATIO, "mode": "uni30"}, "epochs": 1}
    trainer, test_data = train("BPR", {**options, **lists})
    for kind in Own, Hidden:
        trainer.model.__class__ = kind
        assert_equal(*both(trainer, test_data))


def test_what_draws_otherwise_is_left_to_recbole(options, blocks):
    trainer, test_data = train("BPR", {**options, "epochs": 1, "eval_args": {**LAST, "mode": "uni5"}, **LISTS})

    class Own(NegSampleEvalDataLoader):
        pass

    class OwnSampler(type(test_data._sampler)):
        pass

    assert isinstance(sampled.in_blocks(trainer, test_data), sampled._Blocks)
    test_data._sampler.__class__ = OwnSampler
    assert sampled.in_blocks(trainer, test_data) is test_data
    test_data._sampler.__class__ = OwnSampler.__base__
    test_data.__class__ = Own
    assert sampled.in_blocks(trainer, test_data) is test_data


def test_the_loaders_of_our_own_runs_are_evaluated_in_blocks(options, blocks):
    more = {"epochs": 1, "eval_args": {**LAST, "mode": "uni5"}, **LISTS, "save_last": False}
    run_recbole_dsl("BPR", "tiny", config_dict={**options, **more}, saved=False)
    assert blocks


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_blocks_hold_all_users_and_are_bounded(lengths):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled, "_PAIRS", 300)
        bounds = list(sampled._bounds(np.array(lengths)))
    assert [first for first, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == len(lengths)
    assert all(stop - first == 1 or (stop - first) * max(lengths[first:stop]) <= 300 for first, stop in bounds)
