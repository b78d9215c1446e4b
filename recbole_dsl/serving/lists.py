"""Lists of ids of different lengths, one after the other in one array."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Lists(NamedTuple):
    """List ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.

    Attributes:
        offsets: (n + 1,) int64, from 0, ascending.
        ids: (offsets[-1],) int64.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Iterable[Sequence[int] | NDArray]) -> "Lists":
        """One after the other."""
        parts = [np.asarray(part, np.int64) for part in lists]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return cls(offsets_of(np.array([len(part) for part in parts], np.int64)), ids)

    @property
    def n(self) -> int:
        """How many lists there are."""
        return len(self.offsets) - 1

    def owners(self) -> NDArray[np.int64]:
        """(len(ids),): which list each id is in."""
        return np.repeat(np.arange(self.n), np.diff(self.offsets))

    def take(self, which: NDArray[np.int64]) -> "Lists":
        """The lists ``which`` (m,), in that order."""
        starts, ends = self.offsets[which], self.offsets[which + 1]
        offsets = offsets_of(ends - starts)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return Lists(offsets, self.ids[places])

    def between(self, first: int, stop: int) -> "Lists":
        """The lists from ``first`` to ``stop``, without a copy of their ids."""
        offsets = self.offsets[first : stop + 1]
        return Lists(offsets - offsets[0], self.ids[offsets[0] : offsets[-1]])


def offsets_of(counts: NDArray) -> NDArray[np.int64]:
    """(n + 1,) int64: where each of n lists of ``counts`` (n,) begins, and where the last ends."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
