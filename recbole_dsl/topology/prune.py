"""Which alive weights matter least. A criterion returns an importance; the lowest are pruned."""

from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor


@dataclass(frozen=True)
class AliveWeights:
    """What a prune criterion sees of one tensor's alive weights.

    Attributes:
        values: (nnz,) the weights.
        gradient: (nnz,) their gradient in the last step.
        threshold: the option ``prune_threshold``.
    """

    values: Tensor
    gradient: Tensor
    threshold: float


def magnitude(alive: AliveWeights) -> Tensor:
    """|w|, as published."""
    return alive.values.abs()


def set_halves(alive: AliveWeights) -> Tensor:
    """SET (Mocanu et al. 2018): the positive and the negative weights lose the same share, smallest first.

    The importance is the rank within the half, in parts of the half's size; zeros belong to the
    positive half.
    """
    importance = torch.empty_like(alive.values)
    negative = alive.values < 0
    for half in (negative, ~negative):
        size = int(half.sum())
        order = alive.values[half].abs().argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(size, device=order.device)
        importance[half] = rank.to(importance.dtype) / max(size, 1)
    return importance


def taylor(alive: AliveWeights) -> Tensor:
    """|w · g|: the first-order change of the loss when w is removed (Molchanov et al. 2019)."""
    return (alive.values * alive.gradient).abs()


def threshold(alive: AliveWeights) -> Tensor:
    """|w| where it is below the threshold; the others are not pruned at all."""
    size = alive.values.abs()
    return size.masked_fill(size >= alive.threshold, float("inf"))


PRUNE = {"magnitude": magnitude, "set": set_halves, "taylor": taylor, "threshold": threshold}


def least_important(importance: Tensor, n: int, protected: Optional[Tensor] = None) -> Tensor:
    """Slots of the ``n`` lowest finite importances (fewer if fewer are finite), ties included exactly.

    Args:
        importance: (nnz,) float; infinity and NaN mean "not to be pruned".
        protected: (p,) slots that are kept whatever their importance.

    Returns:
        (<= n,) int64, ascending.
    """
    importance = importance.nan_to_num(nan=float("inf"), posinf=float("inf"))
    if protected is not None:
        importance[protected] = float("inf")
    n = min(n, int(importance.isfinite().sum()))
    return importance.topk(n, largest=False, sorted=False).indices.sort().values


def best_of_each_row(importance: Tensor, rows: Tensor) -> Tensor:
    """The slot of the highest importance in each row that has any; the first of equals.

    Args:
        importance: (nnz,) float.
        rows: (nnz,) int64, ascending: the row of each slot.

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
