"""Vectors that a graph model makes of its weights: weighted sums of the layers of a propagation."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.csr import CSR, Floats

# layers that a file may ask for
MOST_LAYERS = 8
# added by RecBole, so that no degree is 0
_DEGREE = 1e-7

Sides = tuple[Floats, Floats]


def propagated(users: Floats, items: Floats, histories: CSR, weights: Sequence[float]) -> Sides:
    """The sum over k of ``weights[k]`` times the vectors after k layers of propagation.

    A layer is a product with the matrix of interactions, normalised by the roots of the degrees, as in LightGCN.

    Args:
        users: (n_users, n_columns).
        items: (n_items, n_columns).
        histories: the distinct items of each user.

    Returns:
        The vectors of users and of items, of the same shapes.
    """
    sums = (users * np.float32(weights[0]), items * np.float32(weights[0]))
    for weight, layer in zip(weights[1:], _layers(users, items, histories)):
        for total, part in zip(sums, layer):
            total += np.float32(weight) * part
    return sums


def layer_weights(users: Floats, items: Floats, histories: CSR, wanted: Sides) -> list[float] | None:
    """The weights with which `propagated` gives ``wanted``, or None if there are none."""
    layers, target = [_flat((users, items))], _flat(wanted)
    for layer, _ in zip(_layers(users, items, histories), range(MOST_LAYERS // 2)):
        layers.append(_flat(layer))
        stacked = np.stack(layers, 1)
        weights = np.linalg.lstsq(stacked, target, rcond=None)[0]
        if np.abs(stacked @ weights - target).max() <= 1e-5 * np.abs(target).max(initial=0):
            # else the vectors are the weights themselves
            is_made = np.abs(weights[1:]).max() > 1e-6
            return [float(weight) for weight in weights] if is_made else None
    return None


def _layers(users: Floats, items: Floats, histories: CSR) -> Iterator[Sides]:
    scale_users = (histories.lengths + _DEGREE) ** -0.5
    scale_items = (np.bincount(histories.columns, minlength=len(items)) + _DEGREE) ** -0.5
    values = (scale_users[histories.row_of_entry()] * scale_items[histories.columns]).astype(np.float32)
    step = CSR(histories.offsets, histories.columns, values, len(items)).to_scipy()
    back = step.T.tocsr()
    while True:
        users, items = step @ items, back @ users
        yield users, items


def _flat(sides: Sides) -> NDArray[np.float64]:
    return np.concatenate([side.reshape(-1) for side in sides]).astype(np.float64)
