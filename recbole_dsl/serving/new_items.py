"""Items that came after training: their vectors, from the users who had them, and the histories with them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.csr import CSR, Floats, offsets_of
from recbole_dsl.serving.folding import fold_in, prior_of
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.user_histories import UserHistories

# trained items from which the scale is estimated, and items folded in at once, to bound memory
_SAMPLE, _AT_ONCE = 4096, 64
# relative to the mean squared norm of what is mapped; a thousand times more or less changes nothing on ml-100k
_RIDGE = 1e-3


def folding_by(users: PackedTable) -> Callable[[CSR], Floats]:
    """A function that folds n lists of users in, by their vectors in ``users``: (n, n_columns)."""
    # decoding all rows once is faster than decoding many scattered ones
    rows, prior = users.all_rows(), prior_of(users, users.n_columns)
    return lambda lists: fold_in(lambda ids: rows.take(ids).dense(), prior, lists)


def item_scale(fold: Callable[[CSR], Floats], items: PackedTable, trained: CSR) -> NDArray[np.float64]:
    """(n_columns, n_columns) the map of folded-in vectors to the scale of trained ones.

    Least squares shrinks a vector, the more so the fewer users there are, and knows nothing of the scale of a
    model's scores. Without this map the new items would come last for everybody, or first. So a sample of trained
    items is folded in, and the map brings these vectors to their trained ones, with the least squared error.

    Args:
        trained: the items of each user in the training data.
    """
    lists = _users_of_some(trained, items.n_rows, _SAMPLE)
    sample = np.flatnonzero(lists.lengths)
    folded = np.empty((len(sample), items.n_columns))
    for start in range(0, len(sample), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        folded[part] = fold(lists.take(sample[part]))
    gram = folded.T @ folded
    ridge = max(_RIDGE * np.trace(gram) / len(gram), np.finfo(np.float32).tiny)
    wanted = folded.T @ items.dense_rows(sample).astype(np.float64)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), wanted)


def new_vectors(fold: Callable[[CSR], Floats], scale: NDArray[np.float64], lists: CSR) -> Floats:
    """(n, n_columns) the vectors of the items that the users of ``lists`` had."""
    return (fold(lists).astype(np.float64) @ scale).astype(np.float32)


def with_rows(table: PackedTable, rows: Floats) -> PackedTable:
    """``table`` with dense ``rows`` appended, in float32, so that no value changes."""
    before, after = table.all_rows(), CSR.of_full(rows)
    columns = np.concatenate([before.column_of_entry(), after.column_of_entry()])
    offsets = np.concatenate([before.offsets, before.offsets[-1] + after.offsets[1:]])
    values = np.concatenate([before.values, after.values])
    return PackedTable.of(CSR(offsets, columns, values, table.n_columns), "fp32")


def with_new(histories: UserHistories, trained: CSR, lists: CSR) -> UserHistories:
    """``histories`` in which the users of ``lists`` have had the items that come after those of before.

    Args:
        trained: the items of each user in the training data.
    """
    n_items, level = histories.n_items, histories.level
    known = trained if level == "trained" else histories.lists(np.arange(trained.n_rows), level)
    both = (_with_columns(one, lists, n_items) for one in (trained, known))
    return UserHistories.of(*both, n_items + lists.n_rows, level)


def _with_columns(lists: CSR, new: CSR, first: int) -> CSR:
    """The items ``lists`` of users, with the ``new`` items that they had, numbered from ``first``."""
    users = np.concatenate([lists.row_of_entry(), new.columns])
    items = np.concatenate([lists.columns, first + new.row_of_entry()])
    order = np.argsort(users, kind="stable")
    return CSR(offsets_of(np.bincount(users, minlength=lists.n_rows)), items[order])


def _users_of_some(lists: CSR, n_items: int, n: int) -> CSR:
    """The users of each item, from the items ``lists`` of users: of about ``n`` items, and none for the others."""
    counts = np.bincount(lists.columns, minlength=n_items)
    there = np.flatnonzero(counts)
    is_chosen = np.zeros(n_items, bool)
    is_chosen[there[np.linspace(0, max(len(there) - 1, 0), min(n, len(there))).astype(np.int64)]] = True
    entries = np.flatnonzero(is_chosen[lists.columns])
    items, users = lists.columns[entries], np.searchsorted(lists.offsets, entries, side="right") - 1
    order = np.argsort(items, kind="stable")
    return CSR(offsets_of(np.where(is_chosen, counts, 0)), users[order])
