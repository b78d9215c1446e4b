"""Splits interactions into training, validation and test parts as RecBole does, without a loop over them."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


class Groups:
    """Indices grouped by key: groups in order of first appearance, and ascending indices within a group.

    Attributes:
        places: (n,) the indices, group after group.
        counts: (groups,) the sizes of the groups.
        firsts: (groups,) the first index of each group.
    """

    def __init__(self, keys: NDArray[np.integer]):
        n = len(keys)
        # transposing a matrix with one entry in each row, at the column of its key, sorts in linear time
        by_key = csr_matrix(
            (np.ones(n, np.int8), keys, np.arange(n + 1)), (n, int(keys.max(initial=-1)) + 1)
        ).tocsc()
        counts = np.diff(by_key.indptr)
        present = np.flatnonzero(counts)
        order = np.argsort(by_key.indices[by_key.indptr[present]])
        self.counts = counts[present][order].astype(np.int64)
        starts = by_key.indptr[present][order]
        self.firsts = by_key.indices[starts]
        if np.array_equal(order, np.arange(len(order))):
            self.places = by_key.indices
        else:
            shift = np.repeat(starts - (np.cumsum(self.counts) - self.counts), self.counts)
            self.places = by_key.indices[np.arange(n) + shift]

    def cut(self, bounds: Sequence[NDArray[np.integer]]) -> list[NDArray[np.integer]]:
        """The indices of each part: those between two consecutive bounds of every group, group by group.

        Args:
            bounds: for each part but the last, the place in each group at which it ends, (groups,).
        """
        ranks = np.arange(len(self.places)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        part = np.zeros(len(ranks), np.int8)
        for bound in bounds:
            part += ranks >= np.repeat(bound, self.counts)
        return [self.places[part == number] for number in range(len(bounds) + 1)]


def by_ratios(keys: NDArray[np.integer], ends: Callable[[int], Sequence[int]]) -> list[NDArray[np.integer]]:
    """The indices of each part if every group of equal ``keys`` is split by ratios.

    Args:
        ends: returns, for the size of a group, where all parts but the last end.
    """
    groups = Groups(keys)
    sizes, kind = np.unique(groups.counts, return_inverse=True)
    bounds = np.array([ends(int(size)) for size in sizes]).reshape(len(sizes), -1)
    return groups.cut(list(bounds[kind].T))


def leave_out(keys: NDArray[np.integer], n: int) -> list[NDArray[np.integer]]:
    """The indices of ``n`` + 1 parts: each of the last ``n`` parts gets one of the last indices of each group.

    A group of fewer than ``n`` + 1 keeps its first index in the first part, and the last parts get the others.
    """
    groups = Groups(keys)
    left = np.minimum(n, groups.counts - 1)
    return groups.cut([groups.counts - np.minimum(left, n - part) for part in range(n)])


def by_time(
    keys: NDArray[np.integer], times: NDArray[np.floating], latest: float, share: float
) -> list[NDArray[np.integer]]:
    """The indices of three parts; in the last, a group has as many as it has ``times`` after ``latest``.

    Args:
        share: of a group's other indices, the share that goes to the first part.
    """
    groups = Groups(keys)
    starts = np.cumsum(groups.counts) - groups.counts
    early = np.add.reduceat((times <= latest)[groups.places].astype(np.int64), starts) if len(starts) else starts
    return groups.cut([(early * share).astype(np.int64), early])
