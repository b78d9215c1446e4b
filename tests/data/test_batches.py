import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from recbole.data.dataloader import TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.utils import KGDataLoaderState
from torch import nn

from tests.data.stock import made, plain, random_states, require_equal, stock

FEATURES = {
    "inter": ["user_id", "item_id", "rating", "timestamp"],
    "user": ["user_id", "age", "gender"],
    "item": ["item_id", "release_year", "class"],
}
GRAPH = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
UNIFORM = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
POPULAR = {**UNIFORM, "distribution": "popularity"}
NONE = {"train_neg_sample_args": None}


class Scores(nn.Module):
    """Stands for a model whose scores choose the hardest of several candidates, and which draws numbers itself."""

    device = torch.device("cpu")

    def predict(self, batch: Interaction) -> torch.Tensor:
        np.random.random()
        return torch.sin(batch["user_id"] * 50.0 + batch["item_id"])


CASES = {
    "pairs": {"model": "BPR"},
    "pairs, in whole batches": {"model": "BPR", "train_batch_size": 60},
    "one user a batch": {"model": "BPR", "train_batch_size": 1},
    "not shuffled": {"model": "BPR", "shuffle": False},
    "pairs with features": {"model": "BPR", "load_col": FEATURES},
    "several negatives": {"model": "BPR", "train_neg_sample_args": {**UNIFORM, "sample_num": 3}},
    "popular": {"model": "BPR", "train_neg_sample_args": {**POPULAR, "alpha": 0.7, "sample_num": 2}},
    "dynamic": {"model": "BPR", "train_neg_sample_args": {**UNIFORM, "dynamic": True, "candidate_num": 4}},
    "points": {"model": "NeuMF", "load_col": FEATURES},
    "points, several and popular": {"model": "NeuMF", "train_neg_sample_args": {**POPULAR, "sample_num": 4}},
    "labels": {"model": "LR", "load_col": FEATURES, "threshold": {"rating": 4}, **NONE},
    "sampled evaluation": {"model": "BPR", "eval_args": {"mode": {"valid": "uni5", "test": "pop5"}}},
    "repeatable": {"model": "BPR", "repeatable": True},
    "repeatable and popular": {"model": "BPR", "repeatable": True, "train_neg_sample_args": POPULAR},
    "users": {"model": "MultiVAE", **NONE},
    "graph": {"model": "KGAT", "load_col": {**FEATURES, **GRAPH}},
    "graph, popular": {"model": "CKE", "load_col": {**FEATURES, **GRAPH}, "train_neg_sample_args": POPULAR},
    "by worker": {"model": "BPR", "worker": 1},
}


def epochs(options: dict) -> list:
    """Two epochs of batches and an evaluation after each, with the states of the random numbers after each."""
    _, train, valid, test = made(options)
    train.get_model(Scores()) if hasattr(train, "get_model") else None
    states = list(KGDataLoaderState) if hasattr(train, "set_mode") else [None]
    found = []
    for loader in 2 * (*[train] * len(states), valid, test):
        if loader is train and states[0] is not None:
            states.append(states.pop(0))
            train.set_mode(states[-1])
        found += [[plain(batch) for batch in loader], random_states()]
        found += [part.generator.get_state() for part in (getattr(loader, "general_dataloader", loader),)]
    return found


@pytest.mark.parametrize("name", CASES)
def test_batches_and_random_numbers_are_those_of_recbole(name, data_path):
    options = {
        "dataset": "tiny",
        "data_path": data_path,
        "train_batch_size": 47,
        "eval_batch_size": 300,
        "load_col": {"inter": ["user_id", "item_id"]},
        **CASES[name],
    }
    with stock():
        theirs = epochs(options)
    require_equal(epochs(options), theirs)


def test_no_loader_keeps_or_makes_a_python_object_for_each_sample(data_path):
    _, train, valid, _ = made({"model": "BPR", "dataset": "tiny", "data_path": data_path})
    for loader in (train, valid):
        assert not isinstance(vars(loader)["dataset"], list)
        assert all(isinstance(batch, np.ndarray) for batch in loader.batch_sampler)


def test_a_loader_of_the_users_own_is_given_lists(data_path):
    class Own(TrainDataLoader):
        def collate_fn(self, index):
            assert type(index) is list
            return super().collate_fn(index[::-1])

    def batches() -> list:
        _, train, _, _ = made({"model": "BPR", "dataset": "tiny", "data_path": data_path})
        return [plain(batch) for batch in Own(train.config, train._dataset, train._sampler, shuffle=True)]

    with stock():
        theirs = batches()
    require_equal(batches(), theirs)


INDICES = st.one_of(
    st.lists(st.integers(-6, 5), max_size=9).map(lambda places: np.array(places, np.int32)),
    st.lists(st.integers(0, 5), max_size=9).map(lambda places: torch.tensor(places, dtype=torch.uint8)),
    st.lists(st.booleans(), min_size=6, max_size=6).map(np.array),
    st.integers(-6, 5).map(np.array),
    st.builds(slice, st.integers(-6, 6), st.integers(-6, 6)),
    st.lists(st.integers(-6, 5), min_size=1),
)


@given(INDICES)
@example(np.arange(6)[::-1])
@example(np.broadcast_to(np.int64(3), 4))
def test_interactions_are_indexed_as_by_recbole(index):
    def taken() -> object:
        columns = {"a": torch.arange(6), "b": torch.arange(6.0).reshape(6, 1) * torch.ones(3)}
        return plain(Interaction(columns)[index])

    with stock():
        theirs = taken()
    require_equal(taken(), theirs)
