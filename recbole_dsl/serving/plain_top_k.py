"""Exact top k with NumPy alone: all scores, then a choice."""

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.item_table import ItemTable, exact_scores
from recbole_dsl.serving.lists import Lists

# scores that are there at once, and items that are multiplied at once: dense, they stay in a processor's cache
_SCORES, _ITEMS = 2**23, 2**12
# entries for each cell of a dense product, from which on that is faster than to go through the entries
_ENTRIES = 1 / 16
_GROUP = 16


def search_plainly(
    table: ItemTable,
    queries: NDArray[np.float32],
    margins: NDArray[np.float32],
    k: int,
    exclude: Lists | None,
    allowed: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best ``k`` items for each row of ``queries`` (n, n_columns): ids and scores, (n, k).

    Args:
        margins: (n,), by how much a score that was added up in float32, in any order, may be wrong.
        exclude: n lists of ids that are left out.
        allowed: (n_items,), which items there are for all queries.
    """
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    batch = max(1, _SCORES // max(1, table.n_items))
    for first in range(0, len(queries), batch):
        here = slice(first, first + batch)
        rough = _rough_scores(table, queries[here])
        if allowed is not None:
            rough[:, ~allowed] = -np.inf
        if exclude is not None:
            left_out = exclude.between(first, first + batch)
            rough[left_out.owners(), left_out.ids] = -np.inf
        query_of, items = _contenders(rough, margins[here], min(k, table.n_items))
        exact = exact_scores(table, queries[here], query_of, items)
        order = np.lexsort((items, -exact, query_of))
        query_of, items, exact = query_of[order], items[order], exact[order]
        place = np.arange(len(items)) - np.searchsorted(query_of, query_of)
        best = place < k
        ids[first + query_of[best], place[best]] = items[best]
        scores[first + query_of[best], place[best]] = exact[best]
    return ids, scores


def _rough_scores(table: ItemTable, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, n_items), added up in float32."""
    scores = np.empty((len(queries), table.n_items), np.float32)
    by_entries = len(queries) * table.density < _ENTRIES
    # dense rows of a wide table are few at once
    height = _ITEMS if by_entries else max(1, min(_ITEMS, 2**22 // table.n_columns))
    for first in range(0, table.n_items, height):
        stop = min(first + height, table.n_items)
        if by_entries:
            scores[:, first:stop] = _of_entries(table, queries, first, stop)
        else:
            scores[:, first:stop] = queries @ table.dense_rows(first, stop).T
    if table.factors is not None:
        scores *= table.factors
    return scores


def _of_entries(table: ItemTable, queries: NDArray[np.float32], first: int, stop: int) -> NDArray[np.float32]:
    """(n, stop - first): the same for some items, by work that follows their entries."""
    offsets = table.row_offsets[first : stop + 1] - table.row_offsets[first]
    entries = slice(table.row_offsets[first], table.row_offsets[stop])
    filled = np.flatnonzero(np.diff(offsets))
    scores = np.zeros((len(queries), stop - first), np.float32)
    if len(filled):
        products = queries[:, table.columns[entries]] * table.values[entries]
        scores[:, filled] = np.add.reduceat(products, offsets[filled], axis=1)
    return scores


def _contenders(
    rough: NDArray[np.float32], margins: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(query, item) of all whose exact score may be among the ``k`` highest of its query, by query, then item."""
    if not rough.size or not k:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # at most the k-th highest, and near it: that of the highest of groups, which are found much faster
    n, n_items = rough.shape
    groups = n_items // _GROUP if n_items >= 4 * _GROUP * k else n_items
    highest = rough[:, : n_items // groups * groups].reshape(n, -1, groups).max(1)
    lowest = np.partition(highest, groups - k, axis=1)[:, -k]
    # the k-th exact score may be lower than this by one margin, and an item's exact score higher by another
    lowest = np.nextafter(lowest - 2 * margins, np.float32(-np.inf))
    lowest[lowest == -np.inf] = np.finfo(np.float32).min
    return np.nonzero(rough >= lowest[:, None])
