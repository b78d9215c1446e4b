"""Exact top k with NumPy alone: all scores, then the highest."""

import numpy as np

from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask

Found = tuple[Ids, Floats]

# scores that are held at once, and items whose dense rows are multiplied at once, to stay in the processor's cache
_SCORES, _ITEMS = 2**23, 2**12
# entries for each cell of a dense product, below which going through the entries is faster
_ENTRIES = 1 / 16
_GROUP = 16


def search_by_numpy(
    table: CSR,
    queries: Floats,
    margins: Floats,
    k: int,
    exclude: CSR | None,
    allowed: Mask | None = None,
    items: Ids | None = None,
) -> Found:
    """The best ``k`` items for each row of ``queries`` (n, n_columns): ids and scores, (n, k).

    Args:
        margins: (n,) by how much a score that was summed in float32, in any order, may be off.
        exclude: n lists of ids that are left out.
        allowed: (n_items,) which items there are for all queries.
        items: (n_items,) the ids of the table's rows, ascending; None for 0, 1, ...
    """
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    batch = max(1, _SCORES // max(1, table.n_rows))
    for first in range(0, len(queries) if table.n_rows else 0, batch):
        here = slice(first, min(first + batch, len(queries)))
        rough = _rough_scores(table, queries[here])
        left_out = exclude and exclude.between(here.start, here.stop)
        if left_out is not None and items is not None:
            places = np.searchsorted(items, left_out.columns).clip(max=len(items) - 1)
            is_there = items[places] == left_out.columns
            rough[left_out.row_of_entry()[is_there], places[is_there]] = -np.inf
            left_out = None
        _leave_out(rough, left_out, allowed)
        query_of, found = _contenders(rough, margins[here], min(k, table.n_rows))
        exact = exact_scores(table, queries[here], query_of, found)
        _fill(ids[here], scores[here], query_of, found if items is None else items[found], exact)
    return ids, scores


def top_of(scores: Floats, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
    """The ``k`` highest of each row of ``scores`` (n, n_items), which is changed; ties by the smaller id.

    Args:
        exclude: n lists of ids that are left out; None for none.
        candidates: (n_items,) which items there are; None for all.

    Returns:
        ids (n, k) int64 and scores (n, k) float32; -1 and -inf where a row has fewer than ``k`` items left. NaN
        is no score.
    """
    scores[np.isnan(scores)] = -np.inf
    _leave_out(scores, exclude, candidates)
    n, n_items = scores.shape
    ids, best = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
    query_of, items = _contenders(scores, np.zeros(n, np.float32), min(k, n_items))
    _fill(ids, best, query_of, items, scores[query_of, items])
    return ids, best


def exact_scores(table: CSR, queries: Floats, query_of: Ids, items: Ids) -> Floats:
    """(pairs,) the scores of pairs of a row of ``queries`` (n, n_columns) and an item, both (pairs,).

    A score is the sum of the products, each exact in float64, added in float64 by ascending columns, times the
    item's factor, and rounded to float32. So it depends neither on the machine nor on what else is searched.
    """
    entries, lengths = table.entries_of(items)
    pairs = np.repeat(np.arange(len(items)), lengths)
    columns = entries % table.n_columns if table.is_full else table.columns[entries]
    products = queries[query_of[pairs], columns].astype(np.float64) * table.values[entries]
    # adds one after the other, while NumPy's sums and dot products choose an order of their own
    sums = np.bincount(pairs, products, len(items)) if len(items) else np.zeros(0)
    if table.factors is not None:
        sums = sums * table.factors[items]
    # no negative zeros
    return sums.astype(np.float32) + np.float32(0)


def _leave_out(scores: Floats, exclude: CSR | None, candidates: Mask | None) -> None:
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    if exclude is not None:
        scores[exclude.row_of_entry(), exclude.columns] = -np.inf


def _rough_scores(table: CSR, queries: Floats) -> Floats:
    """(n, n_items) summed in float32."""
    scores = np.empty((len(queries), table.n_rows), np.float32)
    by_entries = len(queries) * table.density < _ENTRIES
    # of a wide table, few dense rows at once
    height = _ITEMS if by_entries else max(1, min(_ITEMS, 2**22 // table.n_columns))
    for first in range(0, table.n_rows, height):
        stop = min(first + height, table.n_rows)
        if not by_entries:
            scores[:, first:stop] = queries @ table.dense(first, stop).T
            continue
        rows = table.between(first, stop)
        filled = np.flatnonzero(rows.lengths)
        scores[:, first:stop] = 0
        if len(filled):
            products = queries[:, rows.column_of_entry()] * rows.values
            scores[:, first + filled] = np.add.reduceat(products, rows.offsets[filled], axis=1)
    if table.factors is not None:
        scores *= table.factors
    return scores


def _contenders(rough: Floats, margins: Floats, k: int) -> tuple[Ids, Ids]:
    """(query, item) of all whose exact score may be among the ``k`` highest of its query, by query, then item."""
    if not rough.size or not k:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # the k-th highest maximum of a group is at most the k-th highest score, near it, and found much faster
    n, n_items = rough.shape
    groups = n_items // _GROUP if n_items >= 4 * _GROUP * k else n_items
    highest = rough[:, : n_items // groups * groups].reshape(n, -1, groups).max(1)
    lowest = np.partition(highest, groups - k, axis=1)[:, -k]
    # the k-th exact score may be lower by one margin, and an item's exact score higher by another
    lowest = np.nextafter(lowest - 2 * margins, np.float32(-np.inf))
    lowest[lowest == -np.inf] = np.finfo(np.float32).min
    return np.nonzero(rough >= lowest[:, None])


def _fill(
    ids: Ids,
    scores: Floats,
    query_of: Ids,
    items: Ids,
    exact: Floats,
) -> None:
    """Write the best of the pairs (query, item, exact score) into ``ids`` and ``scores`` (n, k)."""
    order = np.lexsort((items, -exact, query_of))
    query_of, items, exact = query_of[order], items[order], exact[order]
    place = np.arange(len(items)) - np.searchsorted(query_of, query_of)
    best = place < ids.shape[1]
    ids[query_of[best], place[best]] = items[best]
    scores[query_of[best], place[best]] = exact[best]
