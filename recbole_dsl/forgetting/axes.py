"""Which axes have an entry for each user, told by their sizes, and what is left of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.serving.csr import CSR, Ids, Mask, offsets_of

# a size so near to the number of users may be theirs, with a row more or less than we know
_NEAR = 2
# RecBole's tables of several fields, one after the other in the order of the columns
_TABLE = re.compile("token_embedding")
# numbers in the options that are no widths of layers
_NO_WIDTH = re.compile(r"batch|seed|epoch|step|topk|worker|interval|window|state|eval|port|rank", re.IGNORECASE)


@dataclass(frozen=True)
class UserAxes:
    """What has an entry for each user keeps those of the users who stay.

    Attributes:
        keep: (users + 1,) whether each stays, the padding first.
        counts: field -> its tokens and the padding, in the order of the columns; that of the users is among them.
        users: the field of the users.
        numbers: in the options, which may be widths of layers.
        refuse: raises an error; it is given words on what is wrong with the file.
    """

    keep: Mask
    counts: Mapping[str, int]
    users: str
    numbers: frozenset[int]
    refuse: Callable[[str], NoReturn]

    def new_ids(self) -> Ids:
        """(users + 1,) the id that each user gets; only those who stay have one."""
        return np.cumsum(self.keep) - 1

    def of_shape(self, shape: Sequence[int], name: str) -> dict[int, Mask]:
        """axis -> (size,) which entries stay, for the axes of ``name`` that have an entry for each user.

        Raises:
            whatever `refuse` does, if it cannot be told.
        """
        masks = {axis: self._of_axis(shape, axis, name) for axis in range(len(shape))}
        return {axis: keep for axis, keep in masks.items() if keep is not None}

    def _of_axis(self, shape: Sequence[int], axis: int, name: str) -> Mask | None:
        size, n = shape[axis], len(self.keep)
        others = {count for field, count in self.counts.items() if field != self.users}
        if size == n:
            if size not in others | self.numbers or (axis == 0 and "user" in name):
                return self.keep
            if size in others and axis == 0 and "item" in name:
                return None
            self._unclear(name, size, "of other things")
        if size in others:
            return None
        starts = self._starts(size) if axis == 0 and len(shape) > 1 and size > n else set()
        if starts and size - n == max(others) and not _TABLE.search(name):
            # graph models have users before items, whatever the columns
            starts = {0}
        elif starts and not _TABLE.search(name):
            # a layer, perhaps
            starts = set() if size in self.numbers else {-1, *starts}
        if len(starts) > 1 or (not starts and abs(size - n) <= _NEAR and size not in self.numbers):
            self._unclear(name, size, "in another order, or of other things")
        if not starts:
            return None
        keep = np.ones(size, bool)
        keep[min(starts) : min(starts) + n] = self.keep
        return keep

    def _unclear(self, name: str, size: int, what: str) -> NoReturn:
        self.refuse(f"{name} has {size} entries, which may be of the {len(self.keep) - 1} users or {what}")

    def _starts(self, size: int) -> set[int]:
        """Where the users may begin in a table of ``size`` rows that are those of several fields, one by one."""
        # the sums of the fields so far, each with the place of the users in them; -1 before they came
        sums: set[tuple[int, int]] = {(0, -1)}
        for field, count in self.counts.items():
            with_it = {(total + count, total if field == self.users else start) for total, start in sums}
            sums = {one for one in sums | with_it if one[0] <= size}
        return {start for total, start in sums if total == size and start >= 0}

    def kept(self, value: Any, name: str) -> Any:
        """``value``, made of tensors, arrays and plain data, without what it has of users who go."""
        if isinstance(value, (Tensor, np.ndarray)):
            for axis, keep in self.of_shape(value.shape, name).items():
                places = np.flatnonzero(keep)
                if isinstance(value, Tensor):
                    value = value.index_select(axis, torch.from_numpy(places).to(value.device))
                else:
                    value = value.take(places, axis)
            return value
        if isinstance(value, dict):
            return self._kept_entries(value, name)
        if isinstance(value, (list, tuple)):
            kept = [self.kept(one, name) for one in value]
            is_of_users = len(value) == len(self.keep)
            return type(value)([one for one, stays in zip(kept, self.keep) if stays] if is_of_users else kept)
        return value

    def _kept_entries(self, value: dict, name: str) -> dict:
        ids = [key for key in value if type(key) is int]
        n = len(self.keep)
        if len(ids) == len(value) and 2 * len(ids) >= n and min(ids) >= 0 and max(ids) < n:
            # a model keeps something for each user
            new = self.new_ids()
            entries = {int(new[key]): entry for key, entry in value.items() if self.keep[key]}
        else:
            entries = {key: self.kept(entry, f"{name} {key}") for key, entry in value.items()}
        # of the same class, as a defaultdict
        kept = value.copy()
        kept.clear()
        kept.update(entries)
        return kept


def without(matrix: CSR, shape: tuple[int, ...], masks: Mapping[int, Mask]) -> CSR:
    """``matrix`` with only some entries of some axes of the dense weight of ``shape``, whose columns are folded.

    Args:
        masks: axis -> (size,) which entries stay.
    """
    rows, columns = matrix.row_of_entry(), matrix.column_of_entry().astype(np.int64)
    places = [rows, *np.unravel_index(columns, shape[1:])]
    stays = np.ones(len(rows), bool)
    for axis, keep in masks.items():
        stays &= keep[places[axis]]
    left = list(shape)
    for axis, keep in masks.items():
        places[axis] = (np.cumsum(keep) - 1)[places[axis]]
        left[axis] = int(keep.sum())
    places = [place[stays] for place in places]
    offsets = offsets_of(np.bincount(places[0], minlength=left[0]))
    folded = np.ravel_multi_index(tuple(places[1:]), tuple(left[1:]))
    return replace(
        matrix, offsets=offsets, columns=folded, values=matrix.values[stays], n_columns=int(np.prod(left[1:]))
    )


def widths_in(options: Any) -> set[int]:
    """The integers in ``options`` that may be widths of layers, in lists and dictionaries too."""
    if type(options) is int:
        return {options}
    if isinstance(options, dict):
        options = [one for name, one in options.items() if not _NO_WIDTH.search(str(name))]
    return set().union(*map(widths_in, options)) if isinstance(options, (list, tuple)) else set()
