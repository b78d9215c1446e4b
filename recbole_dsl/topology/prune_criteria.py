"""Which alive weights matter least. A criterion returns an importance; the lowest are pruned."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AliveWeights:
    """What a prune criterion sees of some of a tensor's alive weights.

    Attributes:
        values: (n,) the weights.
        gradient: gives (n,), their gradient in the last step.
        threshold: the option ``prune_threshold``.
    """

    values: Tensor
    gradient: Callable[[], Tensor]
    threshold: float


def magnitude(alive: AliveWeights) -> Tensor:
    """|w|, as published."""
    return alive.values.abs()


def taylor(alive: AliveWeights) -> Tensor:
    """|w · g|: the first-order change of the loss when w is removed (Molchanov et al. 2019)."""
    return (alive.values * alive.gradient()).abs()


def threshold(alive: AliveWeights) -> Tensor:
    """|w| where it is below the threshold; the others are not pruned at all."""
    size = alive.values.abs()
    return size.masked_fill(size >= alive.threshold, float("inf"))


@dataclass(frozen=True)
class PruneCriterion:
    """An importance and how it is compared.

    Attributes:
        importance: AliveWeights -> (n,) float; infinity and NaN mean "not to be pruned".
        by_sign: whether the negative weights and the others lose the same share, each its lowest.
    """

    importance: Callable[[AliveWeights], Tensor]
    by_sign: bool = False


PRUNE = {
    "magnitude": PruneCriterion(magnitude),
    # SET (Mocanu et al. 2018); zeros belong to the positive half
    "set": PruneCriterion(magnitude, by_sign=True),
    "taylor": PruneCriterion(taylor),
    "threshold": PruneCriterion(threshold),
}


def best_of_each_row(importance: Tensor, rows: Tensor) -> Tensor:
    """The slot of the highest importance in each row that has any; the first of equals.

    Args:
        importance: (n,) float.
        rows: (n,) int64, ascending: the row of each slot.

    Returns:
        (<= rows,) int64, ascending.
    """
    if not len(rows):
        return rows
    highest = importance.new_zeros(int(rows[-1]) + 1).scatter_reduce_(0, rows, importance, "amax")
    slots = (importance == highest[rows]).nonzero().view(-1)
    row = rows[slots]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row.diff() > 0
    return slots[first]
