"""Inverted lists of a sparse table: for each block of like items and each column, who has it, and its value."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.item_table import ItemTable
from recbole_dsl.serving.lists import offsets_of

# items: small enough that bounds are near what is in a block, large enough that a list is worth its loop's start
BLOCK = 512
# rows or blocks that are worked on at once, so that what is made on the way stays small
_ROWS, _BLOCKS = 2**15, 64


class Bounds(NamedTuple):
    """What is known of the lists' blocks where each item is multiplied by a factor.

    Attributes:
        highest, lowest: (n_columns, blocks) float32, between which a block's values of a column are, those that
            are missing taken for 0.
        factors: (n_items,) float32, of the item at each place; (0,) where there are none.
    """

    highest: NDArray[np.float32]
    lowest: NDArray[np.float32]
    factors: NDArray[np.float32]


@dataclass(frozen=True)
class ItemLists:
    """Items in blocks of `BLOCK`, those of the same largest column beside each other, by falling norm.

    Attributes:
        items: (n_items,) int32, the item at each place.
        offsets: (blocks * n_columns + 1,) int64, where the list of a block and column begins.
        places: (nnz,) uint16, the places in a block of the items of a list, ascending.
        values: (nnz,) float32, their values.
        block: items in a block.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    places: NDArray[np.uint16]
    values: NDArray[np.float32]
    block: int

    def bounds(self, factors: NDArray[np.float32] | None) -> Bounds:
        """Between which values of a column the items of a block are, each item multiplied by its factor."""
        n_blocks = -(-len(self.items) // self.block)
        n_columns = (len(self.offsets) - 1) // max(1, n_blocks)
        bounds = np.zeros((2, n_columns, n_blocks), np.float32)
        of_places = np.zeros(0, np.float32) if factors is None else factors[self.items]
        for first in range(0, n_blocks, _BLOCKS):
            stop = min(first + _BLOCKS, n_blocks)
            starts = self.offsets[first * n_columns : stop * n_columns + 1]
            values, lengths = self.values[starts[0] : starts[-1]], np.diff(starts)
            if factors is not None:
                begins = np.repeat(np.arange(first, stop) * self.block, n_columns)
                places = np.repeat(begins, lengths) + self.places[starts[0] : starts[-1]]
                values = values * of_places[places]
            filled = np.flatnonzero(lengths)
            for extremes, choose in zip(bounds, (np.maximum, np.minimum)):
                found = np.zeros(len(lengths), np.float32)
                if len(filled):
                    found[filled] = choose.reduceat(values, starts[filled] - starts[0])
                # an item without the column adds 0
                partial = lengths < self.block
                found[partial] = choose(found[partial], 0)
                extremes[:, first:stop] = found.reshape(-1, n_columns).T
        return Bounds(*bounds, of_places)


def build_lists(table: ItemTable, block: int = BLOCK) -> ItemLists:
    """The lists of a sparse ``table``, with ``block`` items in a block, at most 2^16."""
    n_columns, nnz = table.n_columns, len(table.values)
    items = _like_beside_like(table)
    n_blocks = -(-table.n_items // block)
    lengths = np.zeros(n_blocks * n_columns, np.int64)
    places, values = np.empty(nnz, np.uint16), np.empty(nnz, np.float32)
    # so few that their lists are numbered in 16 bits, which are sorted by counting
    at_once = max(1, min(_BLOCKS, 2**16 // n_columns))
    end = 0
    for first in range(0, n_blocks, at_once):
        entries, of_items = table.entries_of(items[first * block : (first + at_once) * block])
        place = np.repeat(np.arange(len(of_items)), of_items)
        lists = place // block * n_columns + table.columns[entries]
        lists = lists.astype(np.uint16 if n_columns <= 2**16 else np.uint32)
        order = np.argsort(lists, kind="stable")
        start, end = end, end + len(entries)
        places[start:end], values[start:end] = (place % block)[order], table.values[entries[order]]
        counts = np.bincount(lists, minlength=min(at_once, n_blocks - first) * n_columns)
        lengths[first * n_columns : first * n_columns + len(counts)] = counts
    return ItemLists(items.astype(np.int32), offsets_of(lengths), places, values, block)


def _like_beside_like(table: ItemTable) -> NDArray[np.int64]:
    """The items by their largest column, then by falling norm."""
    norms, column = np.zeros((2, table.n_items), np.float32)
    for first in range(0, table.n_items, _ROWS):
        offsets = table.row_offsets[first : first + _ROWS + 1]
        entries, lengths = slice(offsets[0], offsets[-1]), np.diff(offsets)
        magnitudes, columns = np.abs(table.values[entries]), table.columns[entries] + np.float32(1)
        filled = np.flatnonzero(lengths)
        if len(filled):
            starts = offsets[filled] - offsets[0]
            largest = np.maximum.reduceat(magnitudes, starts)
            norms[first + filled] = np.add.reduceat(magnitudes * magnitudes, starts)
            columns[magnitudes != np.repeat(largest, lengths[filled])] = 0
            column[first + filled] = np.maximum.reduceat(columns, starts)
    return np.lexsort((-norms, column))
