"""Sparse tables for today's rows, from yesterday's codes and today's interactions, on an exact budget."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags

from recbole_dsl.initialisation.codes import rows_come_first
from recbole_dsl.sparse.compressed_rows import row_blocks
from recbole_dsl.topology.selection import share_out

# what is added to the squares of a side, as a share of their mean over the columns. At 0.01 a column that few rows
# have is blown up, and NDCG@10 falls by a tenth
_RIDGE = 1.0
_STEPS = 4
# rows of a side that take part in all steps, the most active; the others are coded in the last one
_MOST = 2**15
# rows by which folded codes are brought to the size of trained ones
_COMPARED = 4096
Block = tuple[int, NDArray[np.float32]]


def moved(codes: csr_matrix, old: NDArray[np.int64]) -> csr_matrix:
    """The rows of ``codes`` in another order: (len(old), columns).

    Args:
        old: (rows,) the row of ``codes`` that each one was, or -1 for one that was none, and is empty.
    """
    kept = old >= 0
    counts = np.zeros(len(old), np.int64)
    counts[kept] = np.diff(codes.indptr)[old[kept]]
    some = codes[old[kept]]
    return csr_matrix((some.data, some.indices, np.r_[0, counts.cumsum()]), (len(old), codes.shape[1]))


def damped(interactions: csr_matrix, damping: float) -> csr_matrix:
    """Each of ``interactions`` as 1 / (its user's number of them * its item's) to the power ``damping``."""
    ones = csr_matrix(interactions, dtype=np.float32, copy=True)
    ones.sum_duplicates()
    ones.data[:] = 1
    left, right = (np.maximum(np.asarray(ones.sum(axis)).ravel(), 1) ** -damping for axis in (1, 0))
    return (diags(left) @ ones @ diags(right)).astype(np.float32).tocsr()


def recode(
    users: csr_matrix,
    items: csr_matrix,
    interactions: csr_matrix,
    budgets: tuple[int, int],
    steps: int = _STEPS,
    most: int = _MOST,
) -> tuple[csr_matrix, csr_matrix]:
    """Codes of users and of items whose products are near ``interactions``, from yesterday's on.

    Sparse alternating least squares: the users' codes are solved from the items', the largest entries are kept,
    the items' codes are solved from these, and so on. Users are compared by their share of the row, items as they
    are, as at a first start, so weights move to the rows that have come to need them. Both sides keep yesterday's
    norm. Rows without an interaction keep their code; new ones get the mean.

    Args:
        users, items: (users, columns) and (items, columns), float32, in today's order; what is new is empty.
        interactions: (users, items), float32, `damped`.
        budgets: how many entries the codes of users, and of items, have.
        most: rows of a side that take part in every step, the most active.

    Returns:
        (users, columns) and (items, columns), float32, with exactly as many entries as ``budgets`` say, where the
        interactions and the old codes give as many.
    """
    transposed = interactions.T.tocsr()
    some_users, some_items = most_active_of(interactions, most), most_active_of(transposed, most)
    matrix = interactions[some_users][:, some_items]
    across = matrix.T.tocsr()
    shares = [
        round(len(some) / side.shape[0] * budget)
        for some, side, budget in zip((some_users, some_items), (users, items), budgets)
    ]
    code = items[some_items]
    for step in range(steps):
        if step == steps - 1:
            matrix, across, shares = interactions[:, some_items], transposed[:, some_users], list(budgets)
        of_users = _solved(matrix, code, users if step == steps - 1 else users[some_users], shares[0], True)
        code = of_users[some_users] if step == steps - 1 else of_users
        code = _solved(across, code, items if step == steps - 1 else items[some_items], shares[1], False)
    return of_users, code


def folded_in(
    old: csr_matrix, new: NDArray[np.int64], partners: csr_matrix, interactions: csr_matrix, budget: int
) -> csr_matrix:
    """Codes of the rows ``new`` by least squares on ``partners``, of the size of the old ones: (rows, columns).

    A row without interactions gets the mean of the old codes.

    Args:
        old: (rows, columns), float32; the new rows are empty.
        new: (n,) ascending.
        partners: (others, columns), float32.
        interactions: (rows, others), float32, `damped`.
        budget: how many entries the new codes have in all, at most.
    """
    solve = _solver(partners)
    known = np.flatnonzero((np.diff(old.indptr) > 0) & (np.diff(interactions.indptr) > 0))[:_COMPARED]
    size = _ratio(_norm(old[known].data), _norm(solve(interactions[known])))
    mean = mean_code(old)

    def block(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        found = size * solve(interactions[rows])
        found[~found.any(1)] = mean
        return found

    return new_rows(old.shape, new, block, budget)


def new_rows(
    shape: tuple[int, int], new: NDArray[np.int64], block: Callable[[NDArray], NDArray[np.float32]], budget: int
) -> csr_matrix:
    """The largest entries of the rows ``new``: (rows, columns), ``budget`` at most, each row's by its share.

    Args:
        shape: of the table.
        new: (n,) ascending.
        block: gives the codes of some of the rows, dense.
    """
    blocks = ((start, block(new[start:stop])) for start, stop in row_blocks(len(new), shape[1]))
    return moved(largest_of(blocks, (len(new), shape[1]), budget, True), places_of(new, shape[0]))


def places_of(some: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """(n,) the place of each number in ``some``, or -1."""
    places = np.full(n, -1)
    places[some] = np.arange(len(some))
    return places


def mean_code(codes: csr_matrix) -> NDArray[np.float32]:
    """(columns,) the mean of the rows that have entries; zeros if none has."""
    return np.asarray(codes.sum(0), np.float32).ravel() / max(1, np.count_nonzero(np.diff(codes.indptr)))


def on_budget(codes: csr_matrix, budget: int, by_share: bool = False) -> csr_matrix:
    """The largest entries of ``codes``, ``budget`` at most; as `largest_of`."""
    blocks = ((start, codes[start:stop].toarray()) for start, stop in row_blocks(*codes.shape))
    return largest_of(blocks, codes.shape, budget, by_share)


def filled(codes: csr_matrix, budget: int, padding_row: int | None, seed: int) -> csr_matrix:
    """``codes`` with zeros at random places, so that there are ``budget`` entries.

    None is in ``padding_row``, unless every entry of the table is to be alive.
    """
    rows, columns = codes.shape
    missing = budget - codes.nnz
    if missing <= 0:
        return codes
    generator, draw = torch.Generator().manual_seed(seed), np.random.default_rng(seed)

    def free_in(start: int, stop: int) -> NDArray[np.int64]:
        is_free = np.ones((stop - start, columns), bool)
        some = codes[start:stop].tocoo()
        is_free[some.row, some.col] = False
        if padding_row is not None and start <= padding_row < stop and budget < rows * columns:
            is_free[padding_row - start] = False
        return start * columns + np.flatnonzero(is_free)

    blocks = list(row_blocks(rows, columns))
    counts = share_out(missing, [len(free_in(*block)) for block in blocks], generator)
    zeros = [draw.choice(free_in(*block), count, replace=False) for block, count in zip(blocks, counts)]
    taken = np.repeat(np.arange(rows), np.diff(codes.indptr)) * columns + codes.indices
    positions = np.concatenate([taken, *zeros])
    values = np.concatenate([codes.data, np.zeros(missing, np.float32)])
    order = np.argsort(positions)
    return _of_positions(positions[order], values[order], codes.shape)


def largest_of(blocks: Iterable[Block], shape: tuple[int, int], budget: int, by_share: bool = False) -> csr_matrix:
    """The largest entries of a matrix: of each row first, if `rows_come_first`, then of all; zeros never.

    Args:
        blocks: the first row of each block of rows, and the block, dense; together all rows.
        shape: (rows, columns).
        budget: how many.
        by_share: whether entries are compared after each row is divided by its norm.
    """
    keep_rows = rows_come_first(budget, shape[0], by_share)
    kept = [np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.float32)]
    waiting: list[list[NDArray]] = [kept]
    n_waiting, least = 0, 0.0
    for first, block in blocks:
        keys = np.abs(block)
        if by_share:
            keys /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        if keep_rows:
            best = keys.argmax(1)
            some = np.flatnonzero(keys[np.arange(len(keys)), best])
            # shares are 1 at most, and keep their order, which counts if there are fewer than rows
            keys[some, best[some]] += 2 if by_share else np.inf
        places = np.flatnonzero(keys.ravel() > least)
        waiting.append([keys.ravel()[places], first * shape[1] + places, block.ravel()[places]])
        n_waiting += len(places)
        # what is waiting never takes more than twice the budget and a block
        if n_waiting > 2 * budget:
            waiting = [_first(waiting, budget)]
            n_waiting, least = budget, float(waiting[0][0].min(initial=np.inf))
    _, positions, values = _first(waiting, budget)
    return _of_positions(positions, values, shape)


def _first(parts: list[list[NDArray]], n: int) -> list[NDArray]:
    """The ``n`` entries with the largest keys, in their order: keys, positions, values."""
    keys, positions, values = (np.concatenate(some) for some in zip(*parts))
    if len(keys) <= n:
        return [keys, positions, values]
    if n < 1:
        return [keys[:0], positions[:0], values[:0]]
    least = np.partition(keys, len(keys) - n)[len(keys) - n]
    kept = keys > least
    # of equal ones those of the first rows
    kept[np.flatnonzero(keys == least)[: n - np.count_nonzero(kept)]] = True
    return [keys[kept], positions[kept], values[kept]]


def _of_positions(positions: NDArray[np.int64], values: NDArray, shape: tuple[int, int]) -> csr_matrix:
    counts = np.bincount(positions // shape[1], minlength=shape[0])
    return csr_matrix((values, positions % shape[1], np.r_[0, counts.cumsum()]), shape)


def _solved(matrix: csr_matrix, partners: csr_matrix, old: csr_matrix, budget: int, by_share: bool) -> csr_matrix:
    """Codes of the rows of ``matrix`` from those of its columns, of the size of ``old``."""
    solve = _solver(partners)
    has_any, was_there = (np.diff(some.indptr) > 0 for some in (matrix, old))
    unseen, mean = np.flatnonzero(~has_any), mean_code(old)

    def block_of_unseen(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        block = old[rows].toarray()
        block[~was_there[rows]] = mean
        return block

    kept = new_rows(old.shape, unseen, block_of_unseen, round(budget * len(unseen) / len(has_any)))
    blocks = ((start, solve(matrix[start:stop])) for start, stop in row_blocks(*old.shape))
    codes = largest_of(blocks, old.shape, budget - kept.nnz, by_share)
    known = has_any & was_there
    codes.data *= _ratio(_norm(old[known].data), _norm(codes[known].data))
    return (codes + kept).tocsr() if len(unseen) else codes


def _solver(partners: csr_matrix) -> Callable[[csr_matrix], NDArray[np.float32]]:
    """What solves the codes of a block of rows of interactions, (rows, others), by ridge regression."""
    columns = partners.shape[1]
    squares = np.asarray((partners.T @ partners).todense(), np.float64)
    ridge = max(_RIDGE * np.trace(squares) / columns, 1e-12)
    inverse = np.linalg.inv(squares + ridge * np.eye(columns)).astype(np.float32)
    if partners.shape[0] <= _MOST:
        # no larger than a block, and several times as fast
        onto = partners.toarray() @ inverse
        return lambda block: block @ onto
    return lambda block: (block @ partners).toarray() @ inverse


def most_active_of(matrix: csr_matrix, most: int = _MOST) -> NDArray[np.int64]:
    """The rows with the most entries, ``most`` at most, ascending."""
    return np.sort(np.argsort(-np.diff(matrix.indptr), kind="stable")[:most])


def _norm(values: NDArray) -> float:
    return float(np.linalg.norm(values))


def _ratio(wanted: float, found: float) -> float:
    return wanted / found if wanted > 0 and found > 0 else 1.0
