"""One topology update of some tensors: which weights are pruned, which are grown, and the exchange of them."""

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import torch
from torch import Tensor

from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.gradients import GradientBuffer
from recbole_dsl.topology.grow import Candidates, GrowCriterion
from recbole_dsl.topology.prune import AliveWeights, PruneCriterion, best_of_each_row
from recbole_dsl.topology.select import Cut, draw, find_cut, share_out, sortable


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor of an update: its weight, its record, the gradients collected for it, its optimizer state."""

    weight: SparseWeight
    explored: Explored
    buffer: Optional[GradientBuffer] = None
    states: Sequence[MutableMapping] = ()


@dataclass(frozen=True)
class Rules:
    """What an update goes by."""

    prune: PruneCriterion
    grow: GrowCriterion
    threshold: float
    keep_rows: bool
    generator: torch.Generator


def exchange(parts: Sequence[Part], ratio: float, rules: Rules) -> int:
    """Prune and grow the share ``ratio`` of the alive weights of ``parts``, whose budget is one.

    Every tensor is gone through block of rows by block of rows a few times; what is kept between is a few numbers
    per block, so that an update takes little memory beside the collected gradients.

    Returns:
        how many were pruned, and as many grown.
    """
    nnz = sum(part.weight.nnz for part in parts)
    free = sum(part.weight.capacity for part in parts) - nnz
    n = min(round(ratio * nnz), free)
    if n <= 0:
        return 0
    blocks = [_Block(part, *bounds) for part in parts for bounds in part.weight.row_blocks()]
    pruning = _Pruning(blocks, n, rules)
    growing = _Growing(blocks, pruning.n, rules)
    for part in parts:
        mine = [i for i, block in enumerate(blocks) if block.part is part]
        size = part.weight.nnz + sum(growing.counts[i] - pruning.counts[i] for i in mine)
        part.weight.exchange(_alive_afterwards(blocks, mine, pruning, growing), size, part.states)
    return pruning.n


@dataclass(frozen=True)
class _Block:
    """Some rows of one tensor, ``start`` to ``stop``, and their slots, ``first`` to ``last``."""

    part: Part
    start: int
    stop: int
    first: int
    last: int

    @property
    def weight(self) -> SparseWeight:
        return self.part.weight

    @property
    def size(self) -> int:
        return (self.stop - self.start) * self.weight.n_columns

    @property
    def padding(self) -> Optional[slice]:
        """The padding row's positions in the block, if it is in it."""
        row, width = self.weight.padding_row, self.weight.n_columns
        if row is None or not self.start <= row < self.stop:
            return None
        return slice((row - self.start) * width, (row - self.start + 1) * width)

    @property
    def n_free(self) -> int:
        padding = self.weight.n_columns if self.padding else 0
        return self.size - padding - (self.last - self.first)

    def positions(self) -> Tensor:
        return self.weight.positions_in(self.start, self.stop, self.first, self.last)

    def free(self) -> Tensor:
        """(size,) bool: neither alive nor padding."""
        free = torch.ones(self.size, dtype=torch.bool, device=self.weight.values.device)
        free[self.positions()] = False
        if self.padding:
            free[self.padding] = False
        return free


@dataclass
class _Choice:
    """Those of some keys per block that are on the better side of a cut, and a share of those on it."""

    largest: bool
    cut: Optional[Cut] = None
    better: list[int] = field(default_factory=list)
    ties: list[int] = field(default_factory=list)

    @classmethod
    def make(cls, keys, n: int, largest: bool, generator: torch.Generator) -> "_Choice":
        """Choose ``n`` of all the blocks' keys; ``keys()`` gives each block's, or None."""
        choice = cls(largest)
        if n:
            choice.cut = find_cut(lambda: (some for some in keys() if some is not None), n, largest)
        equal = []
        for some in keys():
            better, same = (0, 0) if some is None or not n else choice._count(some)
            choice.better.append(better)
            equal.append(same)
        choice.ties = share_out(choice.cut.ties if n else 0, equal, generator)
        return choice

    def counts(self) -> list[int]:
        return [better + ties for better, ties in zip(self.better, self.ties)]

    def chosen(self, keys: Tensor, i: int, generator: torch.Generator) -> Tensor:
        """Which of block ``i``'s keys (n,): bool."""
        if self.cut is None:
            return torch.zeros_like(keys, dtype=torch.bool)
        chosen = self._better(keys)
        if self.ties[i]:
            chosen |= draw(keys == self.cut.key, self.ties[i], generator)
        return chosen

    def _better(self, keys: Tensor) -> Tensor:
        return keys > self.cut.key if self.largest else keys < self.cut.key

    def _count(self, keys: Tensor) -> tuple[int, int]:
        return int(self._better(keys).sum()), int((keys == self.cut.key).sum())


class _Pruning:
    """The ``n`` least important alive weights, or as many as may be pruned.

    Attributes:
        n: their number.
        counts: how many of each block.
    """

    def __init__(self, blocks: list[_Block], n: int, rules: Rules):
        self._blocks, self._rules = blocks, rules
        # in a group of one there is nothing that would empty it
        several = len({block.part for block in blocks}) > 1
        self._best_of_tensor = self._find_best() if several and not rules.keep_rows else {}
        halves = (True, False) if rules.prune.by_sign else (None,)
        sizes = [[len(self._keys(i, half)) for i in range(len(blocks))] for half in halves]
        totals = [sum(size) for size in sizes]
        self.n = min(n, sum(totals))
        shares = share_out(self.n, totals, rules.generator)
        self._choices = {
            half: _Choice.make(
                lambda half=half: (self._keys(i, half) for i in range(len(blocks))), share, False, rules.generator
            )
            for half, share in zip(halves, shares)
        }
        self.counts = [sum(counts) for counts in zip(*(c.counts() for c in self._choices.values()))]

    def mask(self, i: int) -> Tensor:
        """(slots of block i,) bool: which of them go."""
        importance = self._importance(i)
        gone = torch.zeros_like(importance, dtype=torch.bool)
        for half, choice in self._choices.items():
            among = self._among(i, importance, half).nonzero().view(-1)
            gone[among] = choice.chosen(sortable(importance[among]), i, self._rules.generator)
        return gone

    def _keys(self, i: int, half: Optional[bool]) -> Tensor:
        importance = self._importance(i)
        return sortable(importance[self._among(i, importance, half)])

    def _among(self, i: int, importance: Tensor, negative: Optional[bool]) -> Tensor:
        among = importance.isfinite()
        if negative is None:
            return among
        block = self._blocks[i]
        return among & ((block.weight.values.detach()[block.first : block.last] < 0) == negative)

    def _importance(self, i: int) -> Tensor:
        block = self._blocks[i]
        weight, slots = block.weight, slice(block.first, block.last)
        some = AliveWeights(
            weight.values.detach()[slots],
            lambda: _entries(weight.values.grad, block.first, block.last),
            self._rules.threshold,
        )
        importance = self._rules.prune.importance(some).nan_to_num(nan=float("inf"), posinf=float("inf"))
        if self._rules.keep_rows:
            rows = torch.div(block.positions(), weight.n_columns, rounding_mode="floor")
            importance[best_of_each_row(importance, rows)] = float("inf")
        elif i in self._best_of_tensor:
            # no tensor may be emptied: its output and its gradients would stay zero for ever
            importance[self._best_of_tensor[i]] = float("inf")
        return importance

    def _find_best(self) -> dict[int, int]:
        """Block and slot in it of each tensor's most important weight."""
        best = {}
        self._best_of_tensor = {}
        for i, block in enumerate(self._blocks):
            importance = self._importance(i)
            if len(importance):
                value, slot = importance.max(0)
                before = best.get(block.part)
                if before is None or float(value) > before[0]:
                    best[block.part] = float(value), i, int(slot)
        return {i: slot for _, i, slot in best.values()}


class _Growing:
    """The ``n`` free positions with the highest scores; where too few score above 0, others at random.

    Attributes:
        counts: how many of each block.
    """

    def __init__(self, blocks: list[_Block], n: int, rules: Rules):
        self._blocks, self._rules = blocks, rules
        scored = [0 if keys is None else len(keys) for keys in self._all_keys()] if n else [0] * len(blocks)
        self._choice = _Choice.make(self._all_keys, min(n, sum(scored)), True, rules.generator)
        unscored = [block.n_free - count for block, count in zip(blocks, scored)]
        self._others = share_out(max(0, n - sum(scored)), unscored, rules.generator)
        self.counts = [a + b for a, b in zip(self._choice.counts(), self._others)]

    def mask(self, i: int, free: Tensor) -> Tensor:
        """(size of block i,) bool: which positions grow; ``free`` are those that may."""
        grown = torch.zeros_like(free)
        found = self._scored(i)
        if found is not None:
            positions, keys = found
            grown[positions[self._choice.chosen(keys, i, self._rules.generator)]] = True
        if self._others[i]:
            others = free.clone()
            if found is not None:
                others[found[0]] = False
            grown |= draw(others, self._others[i], self._rules.generator)
        return grown

    def _all_keys(self) -> Iterator[Optional[Tensor]]:
        for i in range(len(self._blocks)):
            found = self._scored(i)
            yield None if found is None else found[1]

    def _scored(self, i: int) -> Optional[tuple[Tensor, Tensor]]:
        """Positions in block ``i`` that may grow and score above 0, and their keys; None where nothing scores."""
        block = self._blocks[i]
        part, weight = block.part, block.weight
        rows = slice(None)
        if part.buffer is not None:
            held, gradient = part.buffer.held(block.start, block.stop)
            if not len(held):
                return None
            rows = slice(None) if len(held) == block.stop - block.start else held
        elif self._rules.grow.needs_gradient:
            return None
        else:
            gradient = weight.values.new_zeros(()).expand(block.stop - block.start, weight.n_columns)

        def ever_alive() -> Tensor:
            first = block.start * weight.n_columns
            return part.explored.marked_in(first, first + block.size).view(-1, weight.n_columns)[rows]

        score = self._rules.grow.score(Candidates(gradient, ever_alive)).nan_to_num(nan=0.0, posinf=0.0)
        may = block.free().view(-1, weight.n_columns)[rows] & (score > 0)
        index = may.view(-1).nonzero().view(-1)
        keys = sortable(score.reshape(-1)[index])
        if isinstance(rows, Tensor):
            row = torch.div(index, weight.n_columns, rounding_mode="floor")
            index += (held[row] - row) * weight.n_columns
        return index, keys


def _entries(gradient: Tensor, first: int, last: int) -> Tensor:
    """``gradient[first:last]`` as a dense tensor, whatever its layout."""
    if not gradient.is_sparse:
        return gradient[first:last]
    gradient = gradient.coalesce()
    (slots,) = gradient.indices()
    some = slice(*torch.searchsorted(slots, torch.tensor([first, last], device=slots.device)).tolist())
    return gradient.values().new_zeros(last - first).index_copy_(0, slots[some] - first, gradient.values()[some])


def _alive_afterwards(
    blocks: list[_Block], mine: list[int], pruning: _Pruning, growing: _Growing
) -> Iterator[Tensor]:
    for i in mine:
        block, free = blocks[i], blocks[i].free()
        kept = block.positions()[~pruning.mask(i)]
        alive = growing.mask(i, free)
        block.part.explored.mark(alive.nonzero().view(-1) + block.start * block.weight.n_columns)
        alive[kept] = True
        yield alive.view(-1, block.weight.n_columns)
