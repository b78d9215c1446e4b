"""The highest of scores that are all there."""

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.lists import Lists
from recbole_dsl.serving.scorer import Top


def top_of(
    scores: NDArray[np.float32], k: int, exclude: Lists | None, candidates: NDArray[np.bool_] | None
) -> Top:
    """The ``k`` highest of each row of ``scores`` (n, items), which is changed; ties by the smaller item.

    Returns:
        ids (n, k) int64 and scores (n, k) float32; -1 and -inf where a row has fewer than ``k`` items left. NaN
        is no score.
    """
    scores[np.isnan(scores)] = -np.inf
    if candidates is not None:
        scores[:, ~candidates] = -np.inf
    if exclude is not None:
        scores[exclude.owners(), exclude.ids] = -np.inf
    n, n_items = scores.shape
    k_there = min(k, n_items)
    if k_there < n_items:
        found = np.argpartition(scores, n_items - k_there, axis=1)[:, n_items - k_there :]
        lowest = np.take_along_axis(scores, found, 1).min(1)
        # of the items that tie with the last, partitioning takes any
        above = (scores > lowest[:, None]).sum(1)
        for row in np.flatnonzero((scores == lowest[:, None]).sum(1) > k_there - above):
            ties = np.flatnonzero(scores[row] == lowest[row])[: k_there - above[row]]
            found[row] = np.concatenate([np.flatnonzero(scores[row] > lowest[row]), ties])
        found.sort(axis=1)
    else:
        found = np.broadcast_to(np.arange(n_items), scores.shape)
    found_scores = np.take_along_axis(scores, found, 1)
    order = np.argsort(-found_scores, axis=1, kind="stable")
    ids = np.full((n, k), -1, np.int64)
    best = np.full((n, k), -np.inf, np.float32)
    best[:, :k_there] = np.take_along_axis(found_scores, order, 1)
    ids[:, :k_there] = np.take_along_axis(found, order, 1)
    ids[best == -np.inf] = -1
    return ids, best
