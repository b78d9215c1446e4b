"""Inverted lists of a sparse table: for each block of like items and each column, who has it, and its value."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.item_table import ItemTable

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# items: small enough that bounds are near what is in a block, large enough that a list is worth its loop's start
BLOCK = 512


@dataclass(frozen=True)
class ItemLists:
    """Items in blocks of `BLOCK`, those of the same largest column beside each other, by falling norm.

    Attributes:
        items: (n_items,) int32, the item at each place.
        offsets: (blocks * n_columns + 1,) int64, where the list of a block and column begins.
        places: (nnz,) uint16, the places in a block of the items of a list, ascending.
        values: (nnz,) float32, their values.
        highest, lowest: (n_columns, blocks) float32, between which a block's values of a column are, those that
            are missing taken for 0.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int32]
    places: NDArray[np.uint16]
    values: NDArray[np.float32]
    highest: NDArray[np.float32]
    lowest: NDArray[np.float32]


def build_lists(table: ItemTable, block: int = BLOCK) -> ItemLists:
    """The lists of a sparse ``table``, with ``block`` items in a block, at most 2^16."""
    # takes longer to load than a first search without lists takes
    from scipy.sparse import coo_matrix

    items = _like_beside_like(table)
    blocks = -(-table.n_items // block)
    n_lists = blocks * table.n_columns
    ordered = table.take(items)
    place = np.repeat(np.arange(table.n_items, dtype=np.int32), np.diff(ordered.row_offsets))
    lists = place // block * table.n_columns + ordered.columns
    # to compress by rows is to sort by counting
    matrix = coo_matrix((ordered.values, (lists, place % block)), shape=(n_lists, block)).tocsr()
    return ItemLists(
        items.astype(np.int32),
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.uint16),
        matrix.data,
        *(_bounds(matrix, choose, table.n_columns) for choose in (np.maximum, np.minimum)),
    )


def _like_beside_like(table: ItemTable) -> NDArray[np.int64]:
    """The items by their largest column, then by falling norm."""
    magnitudes, row_offsets = np.abs(table.values), table.row_offsets
    lengths = np.diff(row_offsets)
    filled = np.flatnonzero(lengths)
    largest, norms, column = np.zeros((3, table.n_items), np.float32)
    if len(filled):
        starts = row_offsets[filled]
        largest[filled] = np.maximum.reduceat(magnitudes, starts)
        norms[filled] = np.add.reduceat(magnitudes * magnitudes, starts)
        is_largest = magnitudes == np.repeat(largest, lengths)
        column[filled] = np.maximum.reduceat(np.where(is_largest, table.columns + np.float32(1), 0), starts)
    return np.lexsort((-norms, column))


def _bounds(matrix: "csr_matrix", choose: np.ufunc, n_columns: int) -> NDArray[np.float32]:
    """(n_columns, blocks): the extreme of each list, and 0 where it does not hold all items of its block."""
    lengths = np.diff(matrix.indptr)
    extremes = np.zeros(len(lengths), np.float32)
    filled = np.flatnonzero(lengths)
    if len(filled):
        extremes[filled] = choose.reduceat(matrix.data, matrix.indptr[filled])
    # an item without the column adds 0
    partial = lengths < matrix.shape[1]
    extremes[partial] = choose(extremes[partial], 0)
    return np.ascontiguousarray(extremes.reshape(len(extremes) // n_columns, n_columns).T)
