"""Sparse codes of users and items, each computed from the other's, for groups too small to show in factors."""

import numpy as np
from scipy.sparse import csr_matrix

# density of the first codes, if the last are not denser; sparser ones keep a row in the columns it began with
_FIRST_DENSITY = 0.25
# columns are divided by their norm to this power; with 1 they are used more evenly, and BPR on beauty loses 5 % of
# its NDCG@10
_BALANCE = 0.5
# weights for each row: with fewer, rare items that are given one take it from popular ones, and BPR on ml-1m loses
# up to 5 % of its NDCG@10 before training
_EACH = 2


def spread(
    matrix: csr_matrix, items: np.ndarray, densities: tuple[float, float], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of users and of items after ``steps`` alternations that spread rows over all columns.

    A user's code is the mean of the codes of their items, and an item's that of its users: one step of
    propagation, as in graph models. After each step rows are normalised, so that a small group counts as much as a
    popular one; columns are divided by the root of their norm, so that not all rows share the same ones; and only
    the largest entries are kept. It is a spherical k-means (Dhillon and Modha 2001) of both sides at once, in
    which a row belongs to several clusters.

    Args:
        matrix: (users, items), float; damped interactions.
        items: (items, columns), float32; the first codes of users are made from them.
        densities: of the last codes of users, and of items; those of the first are higher, and fall step by step.
        steps: 1 or more.

    Returns:
        (users, columns) and (items, columns), float32, zero but for the largest entries.
    """
    items = _rows_to_norm_1(items)
    transposed = matrix.T.tocsr()
    for step in range(1, steps + 1):
        shares = [
            max(_FIRST_DENSITY, last) * min(1.0, last / _FIRST_DENSITY) ** (step / steps) for last in densities
        ]
        users = _code(matrix @ items, shares[0])
        items = _code(transposed @ users, shares[1])
    return users, items


def rows_come_first(n: int, rows: int, by_share: bool) -> bool:
    """Whether the largest entry of each of ``rows`` rows comes before all others, where ``n`` entries are kept.

    It does where rows count alike, ``by_share``, as those of users; with fewer entries than rows, no row has two.
    Elsewhere some rows matter more, as those of popular items: there each row has one only if it can have two.
    """
    return by_share or n >= _EACH * rows


def largest(rows: np.ndarray, density: float, by_share: bool = False) -> np.ndarray:
    """``rows`` with a share of ``density`` kept, the rest zero: the largest; see `rows_come_first`.

    Args:
        by_share: whether entries are compared after each row is divided by its norm.
    """
    keys = np.abs(_rows_to_norm_1(rows) if by_share else rows)
    n = min(keys.size, max(1, round(density * keys.size)))
    if rows_come_first(n, len(rows), by_share):
        # above all others, and in their own order, which counts if there are fewer than rows
        keys[np.arange(len(keys)), keys.argmax(1)] += 1 + keys.max()
    # a third of the time of argpartition
    least = np.partition(keys.ravel(), keys.size - n)[keys.size - n]
    alive = keys >= least
    if surplus := np.count_nonzero(alive) - n:
        alive.flat[np.flatnonzero(keys == least)[-surplus:]] = False
    return np.where(alive, rows, 0)


def _code(rows: np.ndarray, density: float) -> np.ndarray:
    rows = _rows_to_norm_1(rows)
    norms = np.sqrt(np.einsum("ij,ij->j", rows, rows))
    rows = rows / np.maximum(norms, 1e-6 * norms.max() + 1e-12) ** _BALANCE
    return _rows_to_norm_1(largest(rows, density, by_share=True))


def _rows_to_norm_1(rows: np.ndarray) -> np.ndarray:
    # a fifth of the time that np.linalg.norm takes
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.maximum(norms, 1e-12)[:, None]
