"""Vectors that a graph model makes of its weights: sums of what they become along the interactions."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.lists import Lists

# layers that are tried, and that a file may ask for
MOST_LAYERS = 8
# RecBole's, which keeps the degree of who has no interaction from being 0
_DEGREE = 1e-7

Sides = tuple[NDArray[np.float32], NDArray[np.float32]]


def propagated(
    users: NDArray[np.float32], items: NDArray[np.float32], had: Lists, weights: Sequence[float]
) -> Sides:
    """The sum over k of ``weights[k]`` times the vectors after k steps along the interactions.

    A step is a product with the matrix of interactions, divided by the roots of the degrees on both sides, as in
    LightGCN.

    Args:
        users: (n_users, n_columns).
        items: (n_items, n_columns).
        had: which items each user had, distinct.

    Returns:
        Those of users and of items, of the same shapes.
    """
    sums = (users * np.float32(weights[0]), items * np.float32(weights[0]))
    for weight, layer in zip(weights[1:], _layers(users, items, had)):
        for total, part in zip(sums, layer):
            total += np.float32(weight) * part
    return sums


def layer_weights(
    users: NDArray[np.float32], items: NDArray[np.float32], had: Lists, wanted: Sides
) -> list[float] | None:
    """The weights with which `propagated` gives ``wanted``, or None if there are none."""
    layers, target = [_flat((users, items))], _flat(wanted)
    for layer, _ in zip(_layers(users, items, had), range(MOST_LAYERS // 2)):
        layers.append(_flat(layer))
        stacked = np.stack(layers, 1)
        weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
        if np.abs(stacked @ weights - target).max() <= 1e-5 * np.abs(target).max(initial=0):
            # vectors that are the weights themselves are made of nothing
            is_made = np.abs(weights[1:]).max() > 1e-6
            return [float(weight) for weight in weights] if is_made else None
    return None


def _layers(users: NDArray[np.float32], items: NDArray[np.float32], had: Lists) -> Iterator[Sides]:
    from scipy.sparse import csr_array

    counts = np.diff(had.offsets)
    scale_users = (counts + _DEGREE) ** -0.5
    scale_items = (np.bincount(had.ids, minlength=len(items)) + _DEGREE) ** -0.5
    values = (np.repeat(scale_users, counts) * scale_items[had.ids]).astype(np.float32)
    step = csr_array((values, had.ids, had.offsets), (len(users), len(items)))
    back = step.T.tocsr()
    while True:
        users, items = step @ items, back @ users
        yield users, items


def _flat(sides: Sides) -> NDArray[np.float64]:
    return np.concatenate([side.reshape(-1) for side in sides]).astype(np.float64)
