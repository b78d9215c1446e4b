"""What a topology update depends on, and the blocks of rows that it goes through."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.gradients import GradientBuffer
from recbole_dsl.topology.grow_criteria import GrowCriterion
from recbole_dsl.topology.prune_criteria import PruneCriterion


@dataclass(frozen=True, eq=False)
class Part:
    """One tensor of an update: its weight, its record, its collected gradients and its optimizer state."""

    weight: SparseWeight
    explored: Explored
    buffer: GradientBuffer | None = None
    states: Sequence[MutableMapping] = ()


@dataclass(frozen=True)
class Rules:
    """The criteria of an update, the options that they depend on, and the source of randomness."""

    prune: PruneCriterion
    grow: GrowCriterion
    threshold: float
    keep_rows: bool
    generator: torch.Generator


@dataclass(frozen=True)
class Block:
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
    def padding(self) -> slice | None:
        """The positions of the padding row in the block, if it is in it."""
        row, width = self.weight.padding_row, self.weight.n_columns
        if row is None or not self.start <= row < self.stop:
            return None
        return slice((row - self.start) * width, (row - self.start + 1) * width)

    @property
    def n_free(self) -> int:
        """Number of positions that are neither alive nor padding."""
        return self.size - (self.weight.n_columns if self.padding else 0) - (self.last - self.first)

    def positions(self) -> Tensor:
        """Those of the alive entries, (last - first,) int64, ascending."""
        return self.weight.positions_in(self.start, self.stop, self.first, self.last)

    def free(self, positions: Tensor) -> Tensor:
        """(size,) bool: what is neither alive, at ``positions``, nor padding."""
        free = torch.ones(self.size, dtype=torch.bool, device=positions.device)
        free.index_fill_(0, positions, False)
        if self.padding:
            free[self.padding] = False
        return free
