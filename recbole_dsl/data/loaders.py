"""The loaders of the three parts of a dataset, as RecBole makes them."""

from logging import getLogger
from typing import Any

import numpy as np
import recbole.data.utils as recbole_utils
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.sampler import KGSampler
from recbole.utils import ModelType
from torch import Tensor

from recbole_dsl.data.kept_dataset import kept_parts
from recbole_dsl.data.progress import progress
from recbole_dsl.data.sampling import Pairs, PairSampler, UsedItems

_PHASES = "train", "valid", "test"


def data_preparation(
    config: Config, dataset: Dataset
) -> tuple[AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]:
    """The loaders that RecBole's ``data_preparation`` makes, without a Python object for each interaction.

    They give the same batches from the same random numbers. What is saved, or was, is RecBole's.
    """
    is_saved = config["dataloaders_save_path"] or config["save_dataloaders"]
    if is_saved or config["repeatable"] or not PairSampler.fits(dataset):
        getLogger().debug("The data is divided by RecBole.")
        return recbole_utils.data_preparation(config, dataset)
    with progress("Divide", 3, config) as done:
        built, pairs = kept_parts(config, dataset)
        done.update()
        samplers = _samplers(config, built, pairs)
        done.update()
        loaders = [_loader(config, dataset, *one) for one in zip(_PHASES, built, samplers)]
        done.update()
    for name, options in {
        "Training": ("train_batch_size", "train_neg_sample_args"),
        "Evaluation": ("eval_batch_size", "eval_args"),
    }.items():
        getLogger().info(f"[{name}]: " + " ".join(f"{option} = [{config[option]}]" for option in options))
    return tuple(loaders)


def _samplers(config: Config, built: list[Dataset], pairs: Pairs | None) -> list[PairSampler | None]:
    """One for each part: that of training draws for the others too, by the last distribution that is named."""
    base, samplers = None, []
    for phase in _PHASES:
        options = config[f"{phase}_neg_sample_args"]
        sampler = base
        if options["distribution"] == "none":
            sampler = None
        elif base is None:
            alpha = options["alpha"] if phase == "train" else 1.0
            sampler = PairSampler(list(_PHASES), built, options["distribution"], alpha, pairs)
        else:
            base.set_distribution(options["distribution"])
        if phase == "train":
            base = sampler
        samplers.append(sampler and sampler.set_phase(phase))
    return samplers


def _loader(
    config: Config, dataset: Dataset, phase: str, part: Dataset, sampler: PairSampler | None
) -> AbstractDataLoader:
    kind = recbole_utils.get_dataloader(config, phase)
    if phase == "train" and config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        options = config["train_neg_sample_args"]
        graph = KGSampler(dataset, options["distribution"], options["alpha"])
        return kind(config, part, sampler, graph, shuffle=True)
    if kind is FullSortEvalDataLoader and sampler is not None:
        return _full_sort_loader(config, part, sampler)
    return kind(config, part, sampler, shuffle=phase == "train" and config["shuffle"])


def _full_sort_loader(config: Config, dataset: Dataset, sampler: PairSampler) -> FullSortEvalDataLoader:
    """RecBole's loader, whose tables of positive and of used items are made as they are read."""
    loader = FullSortEvalDataLoader.__new__(FullSortEvalDataLoader)
    loader.logger = getLogger()
    loader.uid_field, loader.iid_field, loader.is_sequential = dataset.uid_field, dataset.iid_field, False
    dataset.sort(by=dataset.uid_field, ascending=True)
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    positive = _Positive(users, items, dataset.user_num, dataset.item_num)
    loader.uid2positive_item = positive
    loader.uid2history_item = _History(sampler.used_ids, positive)
    loader.uid2items_num = np.diff(positive.offsets)
    loader.uid_list = torch.from_numpy(np.flatnonzero(loader.uid2items_num))
    loader.user_df = dataset.join(Interaction({dataset.uid_field: loader.uid_list}))
    loader.sample_size = len(loader.user_df)
    AbstractDataLoader.__init__(loader, config, dataset, sampler, shuffle=False)
    return loader


class _ItemsByUser:
    """A tensor of items for each user, as RecBole's array of such; None for a user who has no line in the part."""

    def __getitem__(self, users: Any) -> Any:
        if isinstance(users, (int, np.integer, Tensor)) and np.ndim(users) == 0:
            return self._items(int(users))
        some = users if isinstance(users, list) else np.arange(len(self))[users]
        return [self._items(int(user)) for user in some]

    def __len__(self) -> int:
        raise NotImplementedError

    def _items(self, user: int) -> Tensor | None:
        raise NotImplementedError


class _Positive(_ItemsByUser):
    def __init__(self, users: NDArray[np.int64], items: NDArray[np.int64], n_users: int, n_items: int):
        pairs = users * n_items + items
        # many times as fast as NumPy's unique, which hashes
        pairs.sort()
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        self.offsets = np.searchsorted(pairs, np.arange(n_users + 1) * n_items)
        self._values = torch.from_numpy(pairs % n_items)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def _items(self, user: int) -> Tensor | None:
        found = self._values[self.offsets[user] : self.offsets[user + 1]]
        return found if len(found) else None


class _History(_ItemsByUser):
    def __init__(self, used: UsedItems, positive: _Positive):
        self._used, self._positive = used, positive

    def __len__(self) -> int:
        return len(self._used)

    def _items(self, user: int) -> Tensor | None:
        positive = self._positive[user]
        if positive is None:
            return None
        used = self._used.pairs.items(user, self._used.part)
        # which ascend; NumPy's setdiff1d takes ten times as long for so few
        found = positive.numpy()
        return torch.from_numpy(used[found.take(np.searchsorted(found, used), mode="clip") != used])
