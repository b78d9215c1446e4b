"""Batches as arrays of indices: importing this changes RecBole's loaders and interactions.

The batches stay the same, and so do the random numbers that are drawn for them.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import (
    FullSortEvalDataLoader,
    KGDataLoader,
    NegSampleEvalDataLoader,
    TrainDataLoader,
    UserDataLoader,
    abstract_dataloader,
)
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

from recbole_dsl.patching import changes

# each begins by converting the indices that it is given to an array
_TAKE_ARRAYS = {
    loader.collate_fn
    for loader in (
        TrainDataLoader, KGDataLoader, UserDataLoader, FullSortEvalDataLoader, NegSampleEvalDataLoader
    )
}  # fmt: skip


class _Places:
    """The indices 0 to ``n`` - 1, in place of RecBole's list of them."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, place: int) -> int:
        return place

    def __getitems__(self, places: Any) -> Any:
        return places


class _ArrayBatches(BatchSampler):
    """PyTorch's batches as int64 arrays, with the same random numbers drawn for them and after them."""

    def __iter__(self) -> Iterator[np.ndarray]:
        n, sampler = len(self.sampler), self.sampler
        if type(sampler) is SequentialSampler:
            for first in range(0, n, self.batch_size):
                yield np.arange(first, min(first + self.batch_size, n))
        elif type(sampler) is RandomSampler and sampler.generator is not None:
            order = self._permutation(n)
            for first in range(0, n, self.batch_size):
                batch = order[first : first + self.batch_size].astype(np.int64)
                if first + self.batch_size > n:
                    del order
                    self._permutation(n)
                yield batch
            if n % self.batch_size == 0:
                self._permutation(n)
        else:
            for batch in super().__iter__():
                yield np.array(batch)

    def _permutation(self, n: int) -> np.ndarray:
        # the permutation does not depend on the dtype
        small = n <= torch.iinfo(torch.int32).max
        return torch.randperm(
            n, generator=self.sampler.generator, dtype=torch.int32 if small else torch.int64
        ).numpy()


@functools.wraps(AbstractDataLoader.__init__)
def _init(self: AbstractDataLoader, *args: Any, **kwargs: Any) -> None:
    _init.__wrapped__(self, *args, **kwargs)
    batches = self.batch_sampler
    # a collate function of the user's own still gets lists
    if getattr(self.collate_fn, "__func__", None) in _TAKE_ARRAYS and type(batches) is BatchSampler:
        # PyTorch's loaders refuse another batch sampler once they are made
        vars(self)["batch_sampler"] = _ArrayBatches(batches.sampler, batches.batch_size, batches.drop_last)


def places_of(index: Any) -> Any:
    """``index`` as columns take it: an array or range as a tensor, anything else as RecBole has it."""
    if isinstance(index, range):
        # PyTorch makes a list of it, which takes a second for 10 M rows
        index = np.arange(index.start, index.stop, index.step)
    if not isinstance(index, np.ndarray | torch.Tensor):
        return index
    array = index.numpy(force=True) if isinstance(index, torch.Tensor) else index
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "biu":
        return array.tolist()
    dtype = bool if array.dtype.kind == "b" else np.int64
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))


def row_taker(index: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes the rows of a column at ``index``."""
    places = places_of(index)
    is_plain = isinstance(places, torch.Tensor) and places.dtype == torch.int64 and int(places.min()) >= 0

    def take(column: torch.Tensor) -> torch.Tensor:
        if is_plain and column.device == places.device:
            # three times as fast as by brackets, which also take negative places
            return column.index_select(0, places)
        return column[places]

    return take


@functools.wraps(Interaction.__getitem__)
def _take(self: Interaction, index: Any) -> Any:
    # bypasses a traced table, which records the columns that are read
    columns = vars(self)["interaction"]
    if isinstance(index, str):
        return columns[index]
    take = row_taker(index)
    return Interaction({name: take(column) for name, column in columns.items()})


def _list(values: Any) -> Any:
    return _Places(len(values)) if isinstance(values, range) else list(values)


@changes(
    "recbole.data: AbstractDataLoader.__init__, Interaction.__getitem__",
    "RecBole makes lists of numbers, some 70 bytes a sample, and of each batch",
    "the process ends",
)
def _install() -> None:
    abstract_dataloader.list = _list
    AbstractDataLoader.__init__ = _init
    Interaction.__getitem__ = _take


_install()
