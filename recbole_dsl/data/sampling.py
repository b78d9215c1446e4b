"""RecBole's sampler of negative items, with one sorted array of used items in place of a set for each user."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from recbole.sampler import Sampler
from scipy.sparse import csr_matrix

from recbole_dsl.data.lazy_columns import column_of

# low bits of a packed pair, with the first part of the data that has it
_PART_BITS = 2
# pairs that are computed with at a time, without much memory beside all
_BLOCK = 2**20


class Pairs:
    """Sorted pairs of a user and an item, each with the first part of the data that has it.

    Args:
        parts: (users, items) of each part, at most four.
        n_users, n_items: numbers of ids, with the padding.
    """

    def __init__(self, parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], n_users: int, n_items: int):
        self.n_users, self.n_items = n_users, n_items
        packed = np.empty(sum(len(users) for users, _ in parts), np.int64)
        start = 0
        for number, (users, items) in enumerate(parts):
            part = packed[start : start + len(users)]
            np.multiply(users, n_items, out=part)
            part += items
            part <<= _PART_BITS
            part |= number
            start += len(users)
        packed.sort()
        is_first = np.ones(len(packed), bool)
        for start in range(1, len(packed), _BLOCK):
            pairs = packed[start - 1 : start + _BLOCK] >> _PART_BITS
            np.not_equal(pairs[1:], pairs[:-1], out=is_first[start : start + _BLOCK])
        self._packed = packed if is_first.all() else packed[is_first]
        starts = np.arange(n_users + 1, dtype=np.int64) * n_items << _PART_BITS
        self.offsets = np.searchsorted(self._packed, starts)

    @classmethod
    def of(cls, parts: Sequence[Dataset]) -> "Pairs":
        """The pairs in the parts of a dataset."""
        first = parts[0]
        columns = [
            tuple(column_of(part.inter_feat, field).numpy() for field in (first.uid_field, first.iid_field))
            for part in parts
        ]
        return cls(columns, first.user_num, first.item_num)

    @classmethod
    def from_arrays(cls, arrays: Sequence[NDArray[np.int64]], n_users: int, n_items: int) -> "Pairs":
        """The pairs that returned these as `arrays`."""
        pairs = cls.__new__(cls)
        (pairs._packed, pairs.offsets), pairs.n_users, pairs.n_items = arrays, n_users, n_items
        return pairs

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What `from_arrays` needs, beside the numbers of ids."""
        return self._packed, self.offsets

    def matrix(self) -> csr_matrix:
        """The pairs as ones: CSR, (users, items), float32."""
        n = len(self._packed)
        index = np.int32 if max(n, self.n_items) <= np.iinfo(np.int32).max else np.int64
        items = np.empty(n, index)
        for start in range(0, n, _BLOCK):
            items[start : start + _BLOCK] = (self._packed[start : start + _BLOCK] >> _PART_BITS) % self.n_items
        entries = np.ones(n, np.float32), items, self.offsets.astype(index)
        return csr_matrix(entries, (self.n_users, self.n_items))

    @staticmethod
    def fit(n_users: int, n_items: int) -> bool:
        """Whether 64 bits hold a pair of so many users and items."""
        return n_users * n_items < 2 ** (63 - _PART_BITS)

    def have(self, users: NDArray[np.int64], items: NDArray[np.int64], part: int) -> NDArray[np.bool_]:
        """(n,) whether each pair is in one of the parts up to ``part``."""
        if not len(self._packed):
            return np.zeros(len(users), bool)
        pairs = users * self.n_items + items
        found = self._packed[np.searchsorted(self._packed, pairs << _PART_BITS).clip(max=len(self._packed) - 1)]
        return (found >> _PART_BITS == pairs) & (found & (2**_PART_BITS - 1) <= part)

    def items_of(self, users: NDArray[np.int64], part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The items of ``users`` in the parts up to ``part``: indices into ``users``, ascending, and items."""
        counts = self.offsets[users + 1] - self.offsets[users]
        places = np.repeat(np.arange(len(users)), counts)
        ends = np.cumsum(counts)
        packed = self._packed[np.arange(len(places)) + np.repeat(self.offsets[users] - (ends - counts), counts)]
        is_used = (packed & (2**_PART_BITS - 1)) <= part
        places = places[is_used]
        return places, (packed[is_used] >> _PART_BITS) - users[places] * self.n_items


class UsedItems:
    """The items of each user in the parts up to one, as RecBole's array of sets; a set is made when it is read."""

    def __init__(self, pairs: Pairs, part: int):
        self.pairs, self.part = pairs, part

    def __getitem__(self, users: Any) -> Any:
        if isinstance(users, (int, np.integer)):
            return set(self.pairs.items_of(np.array([range(len(self))[users]]), self.part)[1])
        found = np.empty(len(some := np.arange(len(self))[users]), object)
        found[:] = [self[int(user)] for user in some]
        return found

    def __len__(self) -> int:
        return self.pairs.n_users

    def __iter__(self) -> Iterator[set]:
        return (self[user] for user in range(len(self)))

    def items_of(self, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of ``users``: indices into ``users``, ascending, and items."""
        return self.pairs.items_of(users, self.part)

    def have(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) whether each pair of a user and an item is among them."""
        return self.pairs.have(users, items, self.part)


class PairSampler(Sampler):
    """RecBole's ``Sampler``: the same items from the same random numbers.

    Args:
        pairs: of ``datasets``.
    """

    def __init__(self, phases: list[str], datasets: list[Dataset], distribution: str, alpha: float, pairs: Pairs):
        self._pairs = pairs
        super().__init__(phases, datasets, distribution, alpha)

    def get_used_ids(self) -> dict[str, UsedItems]:
        """The used items of each phase; as in RecBole, a ValueError if a user has interacted with all items."""
        # the padding counts as an item
        if (np.diff(self._pairs.offsets) + 1 == self.item_num).any():
            raise ValueError("Some users have interacted with all items, which leaves no negative items for them.")
        return {phase: UsedItems(self._pairs, number) for number, phase in enumerate(self.phases)}
