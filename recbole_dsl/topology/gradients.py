"""The gradients of inactive positions, collected over a few steps to decide what grows."""

from typing import Optional

import torch
import torch.distributed as dist
from torch import Tensor


class GradientBuffer:
    """Sums the dense gradients of one tensor's rows, of the rows that got one only.

    With ``share`` below 1 the gradients of that share of the rows are collected, drawn at random
    (SparseRec, arXiv 2411.12205, does the same); the buffer never holds more than ``share`` of the dense
    tensor, plus four bytes per row to find a row in it.

    Attributes:
        peak_bytes: the most memory held so far.
    """

    def __init__(self, rows: int, columns: int, like: Tensor, share: float, generator: torch.Generator):
        self.limit = max(1, int(share * rows))
        self.sums = like.new_zeros(0, columns)
        self.used = 0
        # the place of each row in `sums`: -1 has none yet, -2 gets none
        self.places = torch.full((rows,), -1, dtype=torch.int32, device=like.device)
        if self.limit < rows:
            left_out = torch.randperm(rows, generator=generator)[self.limit :]
            self.places[left_out.to(like.device)] = -2
        self.peak_bytes = 0
        if _distributed():
            # every process needs the same rows in the same places to add them up
            self._place((self.places == -1).nonzero().view(-1))

    def add(self, ids: Optional[Tensor], gradient: Tensor) -> None:
        """Add ``gradient`` (n, columns) to the rows ``ids`` (n,), repeated or not; None stands for all rows."""
        gradient = gradient.detach()
        if ids is None:
            self._place((self.places == -1).nonzero().view(-1))
            if self.limit == len(self.places):
                self.sums.index_add_(0, self.places, gradient)
                return
            ids = torch.arange(len(self.places), device=gradient.device)
        else:
            self._place(ids[self.places[ids] == -1].unique())
        places = self.places[ids]
        held = places >= 0
        self.sums.index_add_(0, places[held], gradient[held].to(self.sums.dtype))

    def decay(self, factor: float) -> None:
        """Multiply what was collected by ``factor``."""
        self.sums *= factor

    def rows(self, start: int, stop: int) -> Tensor:
        """The sums of the rows from ``start`` to ``stop``: (stop - start, columns), zero without a gradient."""
        places = self.places[start:stop]
        held = places >= 0
        out = self.sums.new_zeros(stop - start, self.sums.shape[1])
        out[held] = self.sums[places[held]]
        return out

    def reduce(self) -> None:
        """Add up the sums of all processes, so that all of them grow the same weights."""
        if _distributed():
            dist.all_reduce(self.sums)

    def _place(self, rows: Tensor) -> None:
        if not len(rows):
            return
        end = self.used + len(rows)
        if end > len(self.sums):
            size = min(max(end, 2 * len(self.sums)), self.limit)
            grown = self.sums.new_zeros(size, self.sums.shape[1])
            grown[: self.used] = self.sums[: self.used]
            self.sums = grown
        self.places[rows] = torch.arange(self.used, end, dtype=torch.int32, device=rows.device)
        self.used = end
        held = sum(t.numel() * t.element_size() for t in (self.sums, self.places))
        self.peak_bytes = max(self.peak_bytes, held)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
