"""Which inactive positions to grow. A criterion returns a score; the highest are grown."""

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """What a grow criterion sees of a block of rows, (r, columns) each.

    Attributes:
        gradient: float, collected over the window; zeros where the criterion needs none.
        ever_alive: bool, whether the position was alive at any time.
        generator: the source of randomness, on the CPU.
    """

    gradient: Tensor
    ever_alive: Tensor
    generator: torch.Generator


def gradient(block: Candidates) -> Tensor:
    """|gradient|, as published (after RigL, Evci et al. 2020); positions without a gradient score 0."""
    return block.gradient.abs()


def random(block: Candidates) -> Tensor:
    """Every position alike, as in SET (Mocanu et al. 2018)."""
    shape, device = block.ever_alive.shape, block.ever_alive.device
    return torch.rand(shape, generator=block.generator).to(device)


def random_unfired(block: Candidates) -> Tensor:
    """A position that was never alive before any that was (after ITOP, Liu et al. 2021), else alike."""
    return random(block) + ~block.ever_alive


@dataclass(frozen=True)
class GrowCriterion:
    """A score and the gradient it needs.

    Attributes:
        score: Candidates -> (r, columns) float; scores of 0 or less state no preference, and are
            resorted to at random.
        needs_gradient: whether gradients of inactive positions are collected.
        decay: factor on the collected gradient at each further step of the window.
        window: default number of steps to collect, capped by the update interval.
    """

    score: Callable[[Candidates], Tensor]
    needs_gradient: bool = False
    decay: float = 1.0
    window: int = 1


GROW = {
    "gradient": GrowCriterion(gradient, needs_gradient=True),
    # an exponential average (Dettmers & Zettlemoyer 2019); after 50 steps 0.9 has forgotten 99.5 %
    "momentum": GrowCriterion(gradient, needs_gradient=True, decay=0.9, window=50),
    "random": GrowCriterion(random),
    "random_unfired": GrowCriterion(random_unfired),
}


@dataclass(frozen=True)
class Block:
    """A block of one tensor's rows: its candidates, which of them may grow, and their global numbers.

    Attributes:
        candidates: what the criterion sees.
        blocked: (r, columns) bool, positions that may not grow: alive, or padding.
        first: number of the block's first position; the others follow row by row.
    """

    candidates: Candidates
    blocked: Tensor
    first: int


def best_candidates(blocks: Callable[[], "list[Block]"], score: Callable[[Candidates], Tensor], n: int) -> Tensor:
    """Numbers of the ``n`` free positions with the highest score, over all blocks.

    Where fewer than ``n`` score above 0, the rest is drawn at random from the other free positions.

    Args:
        blocks: gives the blocks, one by one, in ascending order; called at most twice.

    Returns:
        (n,) int64, ascending; fewer if fewer are free.
    """
    chosen = _highest(blocks, lambda block: score(block.candidates), n)
    if len(chosen) < n:
        first = chosen

        def others(block: Block) -> Tensor:
            scores = random(block.candidates) + 1
            start, stop = torch.searchsorted(
                first, torch.tensor([block.first, block.first + scores.numel()], device=first.device)
            ).tolist()
            scores.view(-1)[first[start:stop] - block.first] = 0
            return scores

        chosen = torch.cat([first, _highest(blocks, others, n - len(first))])
    return chosen.sort().values


def _highest(blocks: Callable, score: Callable[[Block], Tensor], n: int) -> Tensor:
    scores: Optional[Tensor] = None
    numbers: Optional[Tensor] = None
    for block in blocks():
        new = score(block).nan_to_num(nan=0.0, posinf=0.0).masked_fill(block.blocked, 0).view(-1)
        index = (new > 0).nonzero().view(-1)
        new, index = new[index], index + block.first
        if scores is not None:
            new, index = torch.cat([scores, new]), torch.cat([numbers, index])
        if len(new) > n:
            new, best = new.topk(n, sorted=False)
            index = index[best]
        scores, numbers = new, index
    if numbers is None:
        return torch.empty(0, dtype=torch.long)
    return numbers.sort().values
