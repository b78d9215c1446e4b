"""RecBole as it is without recbole_dsl.data, beside what replaces parts of it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import abstract_dataloader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.sampler import RepeatableSampler
from recbole.sampler.sampler import AbstractSampler
from recbole.utils import init_seed

import recbole_dsl.data.loading  # noqa: F401

_REPLACED = [
    (abstract_dataloader.AbstractDataLoader, "__init__"),
    (Interaction, "__getitem__"),
    (AbstractSampler, "sample_by_key_ids"),
    (AbstractSampler, "_pop_sampling"),
    (AbstractSampler, "_build_alias_table"),
    (RepeatableSampler, "sample_by_user_ids"),
    (RepeatableSampler, "get_used_ids"),
    (SequentialDataset, "data_augmentation"),
]


@contextmanager
def stock() -> Iterator[None]:
    """Within it, RecBole's own code makes the data and its batches."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _REPLACED:
            patch.setattr(owner, name, vars(owner)[name].__wrapped__)
        patch.delattr(abstract_dataloader, "list")
        yield


def made(options: dict) -> tuple:
    """The dataset of RecBole for ``options``, and its three loaders."""
    config = Config(options["model"], options["dataset"], config_dict=options)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return dataset, *data_preparation(config, dataset)


def plain(value: object) -> object:
    """A batch, or what else a loader gives, as lists and tensors alone."""
    if isinstance(value, Interaction):
        return {name: value[name] for name in value.columns}
    return [plain(part) for part in value] if isinstance(value, tuple) else value


def require_equal(ours: object, theirs: object) -> None:
    """Fail unless both are the same to the bit, with columns in the same order."""
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for name in theirs:
            require_equal(ours[name], theirs[name])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs):
            require_equal(one, other)
    else:
        assert ours == theirs


def random_states() -> list:
    """Where the random numbers of the process stand."""
    return [str(np.random.get_state()), torch.get_rng_state(), str(random.getstate())]
