"""An inverted index of a sparse table: which items of a block have a value in a column, and what it is."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.csr import CSR, Floats, Ids, offsets_of

# items in a block: few enough for tight bounds, enough to pay for the start of a list's loop
BLOCK = 512
# rows or blocks that are worked on at once, to bound memory
_ROWS, _BLOCKS = 2**15, 64


class Bounds(NamedTuple):
    """Bounds of the values in each block, each item multiplied by its factor.

    Attributes:
        highest, lowest: (n_columns, blocks) float32; missing values count as 0.
        factors: (n_items,) float32, of the item at each place; (0,) if there are none.
    """

    highest: Floats
    lowest: Floats
    factors: Floats


@dataclass(frozen=True, eq=False)
class InvertedIndex:
    """The inverted index of blocks of similar items: those with the same largest column, by falling norm.

    Attributes:
        items: (n_items,) int32, the item at each place; a block is a range of places.
        lists: row ``b * n_columns + c`` has the places within block ``b`` with a value in column ``c``, uint16,
            ascending, and these values.
        block: items in a block.
    """

    items: NDArray[np.int32]
    lists: CSR
    block: int

    def arrays(self) -> tuple[Any, ...]:
        """What the compiled loops take of it."""
        return self.items, self.lists.offsets, self.lists.columns, self.lists.values, self.block

    def bounds(self, factors: Floats | None) -> Bounds:
        """The bounds of the blocks, with ``factors`` (n_items,) of the items, at least 0; None for 1."""
        n_blocks = -(-len(self.items) // self.block)
        n_columns = self.lists.n_rows // max(1, n_blocks)
        bounds = np.zeros((2, n_columns, n_blocks), np.float32)
        of_places = np.zeros(0, np.float32) if factors is None else factors[self.items]
        for first in range(0, n_blocks, _BLOCKS):
            stop = min(first + _BLOCKS, n_blocks)
            lists = self.lists.between(first * n_columns, stop * n_columns)
            values, lengths = lists.values, lists.lengths
            if factors is not None:
                begins = np.repeat(np.arange(first, stop) * self.block, n_columns)
                values = values * of_places[np.repeat(begins, lengths) + lists.columns]
            filled = np.flatnonzero(lengths)
            for extremes, choose in zip(bounds, (np.maximum, np.minimum)):
                found = np.zeros(len(lengths), np.float32)
                if len(filled):
                    found[filled] = choose.reduceat(values, lists.offsets[filled])
                # items without the column count as 0
                partial = lengths < self.block
                found[partial] = choose(found[partial], 0)
                extremes[:, first:stop] = found.reshape(-1, n_columns).T
        return Bounds(*bounds, of_places)


def build_index(table: CSR, block: int = BLOCK) -> InvertedIndex:
    """The inverted index of a sparse ``table``, with ``block`` items in a block, at most 2^16."""
    n_columns, nnz = table.n_columns, len(table.values)
    items = _similar_together(table)
    n_blocks = -(-table.n_rows // block)
    lengths = np.zeros(n_blocks * n_columns, np.int64)
    places, values = np.empty(nnz, np.uint16), np.empty(nnz, np.float32)
    # few enough that 16 bits number their lists, which are then sorted by counting
    at_once = max(1, min(_BLOCKS, 2**16 // n_columns))
    end = 0
    for first in range(0, n_blocks, at_once):
        part = table.take(items[first * block : (first + at_once) * block])
        place = part.row_of_entry()
        lists = place // block * n_columns + part.columns
        lists = lists.astype(np.uint16 if n_columns <= 2**16 else np.uint32)
        order = np.argsort(lists, kind="stable")
        start, end = end, end + len(order)
        places[start:end], values[start:end] = (place % block)[order], part.values[order]
        counts = np.bincount(lists, minlength=min(at_once, n_blocks - first) * n_columns)
        lengths[first * n_columns : first * n_columns + len(counts)] = counts
    return InvertedIndex(items.astype(np.int32), CSR(offsets_of(lengths), places, values), block)


def _similar_together(table: CSR) -> Ids:
    """The items, ordered by their largest column and then by falling norm."""
    norms, column = np.zeros((2, table.n_rows), np.float32)
    for first in range(0, table.n_rows, _ROWS):
        rows = table.between(first, first + _ROWS)
        magnitudes, columns = np.abs(rows.values), rows.columns + np.float32(1)
        filled = np.flatnonzero(rows.lengths)
        if len(filled):
            starts = rows.offsets[filled]
            largest = np.maximum.reduceat(magnitudes, starts)
            norms[first + filled] = np.add.reduceat(magnitudes * magnitudes, starts)
            columns[magnitudes != np.repeat(largest, rows.lengths[filled])] = 0
            column[first + filled] = np.maximum.reduceat(columns, starts)
    # one key: the bits of floats that are not negative ascend as they do
    return np.argsort((column.astype(np.int64) << 32) - norms.view(np.int32))
