"""The data loaders of training, validation and test, as RecBole makes them."""

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
from recbole.sampler.sampler import AbstractSampler
from recbole.utils import ModelType
from torch import Tensor

from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.data.kept_dataset import kept_parts
from recbole_dsl.data.progress import progress
from recbole_dsl.data.sampling import Pairs, PairSampler, UsedItems

_PHASES = "train", "valid", "test"


def data_preparation(
    config: Config, dataset: Dataset
) -> tuple[AbstractDataLoader, AbstractDataLoader, AbstractDataLoader]:
    """The loaders that RecBole's ``data_preparation`` makes, without a Python object for each interaction.

    They give the same batches from the same random numbers. Loaders that are saved or were loaded are RecBole's.
    """
    is_saved = config["dataloaders_save_path"] or config["save_dataloaders"]
    is_known = has_users_and_items(dataset) and (
        config["repeatable"] or Pairs.fit(dataset.user_num, dataset.item_num)
    )
    if is_saved or not is_known:
        getLogger().debug("The data is divided by RecBole.")
        return recbole_utils.data_preparation(config, dataset)
    with progress("Divide", 3, config) as done:
        built, pairs = kept_parts(config, dataset)
        done.update()
        # of repeatable data, as that of sequential models, RecBole's sampler keeps no items
        if config["repeatable"]:
            samplers = recbole_utils.create_samplers(config, dataset, built)
        else:
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
    """A sampler for each part; they share that of training, with the last distribution that an option names."""
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
    config: Config, dataset: Dataset, phase: str, part: Dataset, sampler: AbstractSampler | None
) -> AbstractDataLoader:
    kind = recbole_utils.get_dataloader(config, phase)
    if phase == "train" and config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        options = config["train_neg_sample_args"]
        graph = KGSampler(dataset, options["distribution"], options["alpha"])
        return kind(config, part, sampler, graph, shuffle=True)
    if kind is FullSortEvalDataLoader and type(sampler) is PairSampler:
        return _full_sort_loader(config, part, sampler)
    return kind(config, part, sampler, shuffle=phase == "train" and config["shuffle"])


def _full_sort_loader(config: Config, dataset: Dataset, sampler: PairSampler) -> FullSortEvalDataLoader:
    """RecBole's loader, except that positive and used items are looked up when they are read."""
    loader = FullSortEvalDataLoader.__new__(FullSortEvalDataLoader)
    loader.logger = getLogger()
    loader.uid_field, loader.iid_field, loader.is_sequential = dataset.uid_field, dataset.iid_field, False
    dataset.sort(by=dataset.uid_field, ascending=True)
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    positive = Pairs([(users, items)], dataset.user_num, dataset.item_num)
    loader.uid2positive_item = _ItemsByUser(positive)
    loader.uid2history_item = _ItemsByUser(positive, sampler.used_ids)
    loader.uid2items_num = np.diff(positive.offsets)
    loader.uid_list = torch.from_numpy(np.flatnonzero(loader.uid2items_num))
    loader.user_df = dataset.join(Interaction({dataset.uid_field: loader.uid_list}))
    loader.sample_size = len(loader.user_df)
    AbstractDataLoader.__init__(loader, config, dataset, sampler, shuffle=False)
    return loader


class _ItemsByUser:
    """A tensor of items for each user, in place of RecBole's array; None for a user without lines in the part.

    Args:
        part: the pairs in the part. Without ``used``, they are the items.
        used: the items, from which those in the part are left out.
    """

    def __init__(self, part: Pairs, used: UsedItems | None = None):
        self._part, self._used = part, used

    def __len__(self) -> int:
        return self._part.n_users

    def __getitem__(self, users: Any) -> Any:
        if isinstance(users, (int, np.integer, Tensor)) and np.ndim(users) == 0:
            return self._items_of(np.array([int(users)]))[0]
        return self._items_of(np.asarray(users) if isinstance(users, list) else np.arange(len(self))[users])

    def _items_of(self, users: NDArray[np.int64]) -> list[Tensor | None]:
        if self._used is None:
            places, items = self._part.items_of(users, 0)
        else:
            places, items = self._used.pairs.items_of(users, self._used.part)
            is_left = ~self._part.have(users[places], items, 0)
            places, items = places[is_left], items[is_left]
        rows = torch.from_numpy(items).split(np.bincount(places, minlength=len(users)).tolist())
        has_lines = np.diff(self._part.offsets)[users] > 0
        return [row if is_in else None for row, is_in in zip(rows, has_lines.tolist())]
