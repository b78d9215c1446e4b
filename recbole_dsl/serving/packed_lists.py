"""Ascending lists of ids, in about half a bit an id more than ids drawn at random need (Elias-Fano's code)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.bits import get, ones_before, padded_bytes, put
from recbole_dsl.serving.csr import CSR, Ids, Mask, offsets_of, smallest

# ids that are encoded or decoded at once
_BLOCK = 2**19
_EMPTY = np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class PackedLists:
    """Lists of distinct ids below ``n_ids``; each is read without the others.

    Each id is cut in two. Of an id in a list of ``c``, the lowest ``log2(n_ids / c)`` bits, rounded down, are in
    ``low``. The rest is told by a one in ``high``, at the bit that the rest plus the id's place in its list says.

    Attributes:
        n_ids: at least 1.
        has_flags: whether each part in ``low`` is followed, in its lowest bit, by a flag of the id.
        counts: (n_lists,) unsigned, how many ids each list has.
        high: (bytes,) uint8, list after list.
        low: (bytes,) uint8, list after list.
    """

    n_ids: int
    has_flags: bool
    counts: NDArray[np.unsignedinteger]
    high: NDArray[np.uint8]
    low: NDArray[np.uint8]

    @classmethod
    def of(cls, lists: CSR, n_ids: int, flags: Mask | None = None) -> "PackedLists":
        """``lists``, each ascending and distinct, and perhaps a flag for each id."""
        counts = smallest(lists.lengths)
        empty = cls(n_ids, flags is not None, counts, _EMPTY, _EMPTY)
        starts = empty._high_starts, empty._low_starts
        high, low = (np.zeros(padded_bytes(int(of_side[-1])), np.uint8) for of_side in starts)
        for first, stop in _blocks(counts):
            here = slice(lists.offsets[first], lists.offsets[stop])
            ids = lists.columns[here].astype(np.int64)
            shifts, in_high, in_low = empty._places(slice(first, stop), lists.offsets[first : stop + 1])
            put(high, in_high + (ids >> shifts), np.ones(len(ids), np.uint8))
            parts = ids & ((1 << shifts) - 1)
            put(low, in_low, parts if flags is None else 2 * parts + flags[here])
        return replace(empty, high=high, low=low)

    @classmethod
    def read(
        cls, artifact: Artifact, prefix: str, n_lists: int, n_ids: int, flags: str | None = None
    ) -> "PackedLists":
        """The lists of the arrays that `arrays` named.

        Raises:
            DSLError: if these are no such lists.
        """
        counts_name, high_name, low_name = array_names(prefix, flags)
        counts = artifact.array(counts_name, "u1 u2 u4", (n_lists,))
        if counts.max(initial=0) > n_ids:
            artifact.refuse(f"{counts_name} must be at most {n_ids}")
        lists = cls(n_ids, flags is not None, counts, _EMPTY, _EMPTY)
        high = artifact.array(high_name, "u1", (padded_bytes(int(lists._high_starts[-1])),))
        low = artifact.array(low_name, "u1", (padded_bytes(int(lists._low_starts[-1])),))
        lists = replace(lists, high=high, low=low)
        if not lists._have_their_counts():
            artifact.refuse(f"{high_name} must have as many ones in each list as {counts_name} says")
        if lists._exceed():
            artifact.refuse(f"{low_name} must be of ids within 0..{n_ids - 1}")
        return lists

    def arrays(self, prefix: str, flags: str | None = None) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name; ``flags`` is a word for what they tell, if there are any."""
        return dict(zip(array_names(prefix, flags), (self.counts, self.high, self.low)))

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: Ids) -> tuple[CSR, Mask]:
        """The lists ``rows`` (m,), and the flag of each id; all are True where there are none."""
        if len(rows) == 1:
            return self._one(int(rows[0]))
        starts, ends = self._high_starts[rows].astype(np.int64), self._high_starts[rows + 1].astype(np.int64)
        n_bytes = ((ends + 7) >> 3) - (starts >> 3)
        bytes_ = CSR(offsets_of(n_bytes), np.zeros(0))
        of_byte = bytes_.row_of_entry()
        places = np.arange(len(of_byte)) + ((starts >> 3) - bytes_.offsets[:-1])[of_byte]
        ones = np.flatnonzero(np.unpackbits(self.high[places], bitorder="little").view(bool))
        of_one, bits = of_byte[ones >> 3], (places[ones >> 3] << 3) + (ones & 7)
        # a byte may be of two lists
        return self._decoded(rows, bits[(bits >= starts[of_one]) & (bits < ends[of_one])])

    def between(self, first: int, stop: int) -> tuple[CSR, Mask]:
        """What `take` returns for the lists from ``first`` to ``stop``."""
        if stop == first + 1:
            return self._one(first)
        start, end = int(self._high_starts[first]), int(self._high_starts[stop])
        bits = np.unpackbits(self.high[start >> 3 : (end + 7) >> 3], bitorder="little").view(bool)
        ones = np.flatnonzero(bits[start & 7 : (start & 7) + end - start])
        return self._decoded(slice(first, stop), ones + start)

    def _one(self, row: int) -> tuple[CSR, Mask]:
        """What `take` returns for one list, in a third of the time."""
        count, start, end = int(self.counts[row]), int(self._high_starts[row]), int(self._high_starts[row + 1])
        shift = (self.n_ids // max(count, 1)).bit_length() - 1
        bits = np.unpackbits(self.high[start >> 3 : (end + 7) >> 3], bitorder="little").view(bool)
        order = np.arange(count)
        width = shift + self.has_flags
        parts = get(self.low, int(self._low_starts[row]) + width * order, width).view(np.int64)
        tops = np.flatnonzero(bits[start & 7 : (start & 7) + end - start]) - order
        return self._joined(np.array([0, count]), tops << shift, parts)

    def blocks(self) -> Iterator[tuple[CSR, Mask]]:
        """What `take` returns for all lists, some of them at a time."""
        return (self.between(first, stop) for first, stop in _blocks(self.counts))

    @cached_property
    def _high_starts(self) -> NDArray[np.unsignedinteger]:
        """(n_lists + 1,) the bit of ``high`` at which each list begins, and the last one ends."""
        return _smaller(offsets_of(self._taken_by(self.counts)[1]))

    @cached_property
    def _low_starts(self) -> NDArray[np.unsignedinteger]:
        """(n_lists + 1,) the same of ``low``."""
        return _smaller(offsets_of(self._taken_by(self.counts)[2]))

    def _taken_by(self, counts: NDArray[np.unsignedinteger]) -> tuple[Ids, Ids, Ids]:
        """(m,) the low bits of an id in lists of so many, and the bits that these take in ``high`` and ``low``."""
        most = int(counts.max(initial=0))
        if most + 1 < len(counts):
            # many lists have few counts
            return tuple(of_count.take(counts) for of_count in self._taken_by(np.arange(most + 1)))  # type: ignore
        counts = counts.astype(np.int64)
        # exact, as these are no more than a float64 holds
        shifts = np.frexp(self.n_ids // np.maximum(counts, 1))[1].astype(np.int64) - 1
        high = np.where(counts > 0, counts + ((self.n_ids - 1) >> shifts), 0)
        return shifts, high, counts * (shifts + self.has_flags)

    def _places(self, rows: Ids | slice, offsets: Ids) -> tuple[Ids, Ids, Ids]:
        """For each id of ``rows``: how many low bits it has, where its one is for the rest 0, and where they are.

        Args:
            offsets: of these lists, but for a constant.
        """
        counts = self.counts[rows]
        shifts, _, _ = self._taken_by(counts)
        widths, firsts = shifts + self.has_flags, offsets[:-1] - offsets[0]
        entries = np.arange(offsets[-1] - offsets[0])
        high = np.repeat(self._high_starts[:-1][rows] - firsts, counts) + entries
        low = np.repeat(self._low_starts[:-1][rows] - firsts * widths, counts)
        return np.repeat(shifts, counts), high, low + np.repeat(widths, counts) * entries

    def _decoded(self, rows: Ids | slice, ones: Ids) -> tuple[CSR, Mask]:
        """The lists ``rows``, whose ids have their ones at these bits of ``high``."""
        offsets = offsets_of(self.counts[rows])
        shifts, high, low = self._places(rows, offsets)
        parts = get(self.low, low, shifts + self.has_flags).view(np.int64)
        return self._joined(offsets, (ones - high) << shifts, parts)

    def _joined(self, offsets: Ids, tops: Ids, parts: Ids) -> tuple[CSR, Mask]:
        if self.has_flags:
            return CSR(offsets, tops | parts >> 1), (parts & 1).astype(bool)
        return CSR(offsets, tops | parts), np.ones(len(parts), bool)

    def _have_their_counts(self) -> bool:
        """Whether ``high`` has as many ones in each list as the list has ids."""
        return bool((np.diff(ones_before(self.high, self._high_starts)) == self.counts).all())

    def _exceed(self) -> bool:
        """Whether an id is not below ``n_ids``, in lists that have their counts."""
        shifts, _, _ = self._taken_by(self.counts)
        # only the largest rests, whose ones are the last bits of a list, make ids of ``n_ids`` or more
        rows, back = np.flatnonzero((self.counts > 0) & (shifts > 0)), 1
        while len(rows):
            ends = self._high_starts[rows + 1].astype(np.int64) - back
            rows = rows[(self.high[ends >> 3] >> (ends & 7).astype(np.uint8)) & 1 == 1]
            of_row = shifts[rows]
            if (back > 1 << of_row).any():
                return True
            widths = of_row + self.has_flags
            starts = self._low_starts[rows + 1].astype(np.int64) - back * widths
            parts = get(self.low, starts, widths).view(np.int64) >> int(self.has_flags)
            if (((self.n_ids - 1) >> of_row << of_row) + parts >= self.n_ids).any():
                return True
            rows, back = rows[self.counts[rows] > back], back + 1
        return False


def array_names(prefix: str, flags: str | None) -> tuple[str, str, str]:
    """The names of the arrays of lists whose flags are called ``flags``, or which have none."""
    return f"{prefix}.counts", f"{prefix}.high", f"{prefix}.low" if flags is None else f"{prefix}.low_and_{flags}"


def _blocks(counts: NDArray[np.unsignedinteger]) -> Iterator[tuple[int, int]]:
    """First and end of blocks of consecutive lists that have about `_BLOCK` ids."""
    ends = counts.cumsum(dtype=np.int64)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK)))
        yield start, stop
        start = stop


def _smaller(starts: Ids) -> NDArray:
    return starts.astype(np.uint32) if starts[-1] < 2**32 else starts
