"""Which inactive positions to grow. A criterion returns a score; the highest are grown."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """What a grow criterion sees of some rows of a tensor, (r, columns) each.

    Attributes:
        gradient: float, collected over the window; zeros if the criterion needs none.
        ever_alive: gives a bool tensor: which positions were alive at any time; if the criterion
            ``needs_record``.
    """

    gradient: Tensor
    ever_alive: Callable[[], Tensor]


def gradient(rows: Candidates) -> Tensor:
    """|gradient| (RigL, Evci et al. 2020), summed over the window; positions without a gradient score 0."""
    return rows.gradient.abs()


def random(rows: Candidates) -> Tensor:
    """All positions alike, as in SET (Mocanu et al. 2018)."""
    return torch.zeros_like(rows.gradient)


def random_unfired(rows: Candidates) -> Tensor:
    """Positions that were never alive first (after ITOP, Liu et al. 2021), in random order."""
    return (~rows.ever_alive()).to(rows.gradient.dtype)


@dataclass(frozen=True)
class GrowCriterion:
    """A score and the gradient it needs.

    Attributes:
        score: Candidates -> (r, columns) float. Ties are broken at random. Positions with a score of 0 or less
            grow only if the others are too few, at random as well.
        needs_gradient: whether gradients of inactive positions are collected; rows without one score 0.
        decay: factor on the collected gradient at each further step of the window.
        window: default number of steps to collect, capped by the update interval.
        needs_record: whether it reads ``ever_alive``, for which a bit is kept for every position, alive or not.
    """

    score: Callable[[Candidates], Tensor]
    needs_gradient: bool = False
    decay: float = 1.0
    window: int = 1
    needs_record: bool = False


GROW = {
    "gradient": GrowCriterion(gradient, needs_gradient=True, window=200),
    # an exponential average (Dettmers & Zettlemoyer 2019); after 50 steps 0.9 has forgotten 99.5 %
    "momentum": GrowCriterion(gradient, needs_gradient=True, decay=0.9, window=50),
    "random": GrowCriterion(random),
    "random_unfired": GrowCriterion(random_unfired, needs_record=True),
}
