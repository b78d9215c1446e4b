"""The gradients of inactive positions, summed over a few steps to decide what grows."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import true_at
from recbole_dsl.sparse.weight import SparseWeight

# factor by which the tensor of the sums grows when it is full; the old one, held meanwhile, is a quarter at most
_GROWTH = 4
# working memory of an update beside the buffers, for a large tensor, in bytes
_BLOCKS = 6 * 2**20
# share of the rows that a full buffer keeps, so that it need not choose again at every step
_KEPT = 7 / 8


class GradientBuffer:
    """Sums the dense gradients of one tensor's rows over a window of steps, within a memory limit.

    Only rows that get a gradient are held. If the limit is too low for all of them, a random sample is held. Each
    window assigns every row a random priority, and the rows with the lowest ones stay (SparseRec, arXiv
    2411.12205, samples rows as well). The sum of a held row is complete: a row that was dropped does not return
    before the next window.

    Attributes:
        limit: the most rows that are held. If these are all rows, each has a fixed place.
        peak_bytes: the most memory held so far.
    """

    def __init__(self, rows: int, columns: int, like: Tensor, share: float, window: int = 0):
        """For a tensor (rows, columns) of the dtype and device of ``like``.

        Args:
            share: the memory limit, in (0, 1], as a share of the dense tensor's bytes. 1 holds every row.
            window: the number of the window, from 0 to 2**31; it determines the priorities of the rows.
        """
        width = columns * like.element_size()
        cap = share * rows * width
        # the limit also covers the places of the rows, and in an exchange new offsets and a few blocks
        room = cap - 8 * rows - min(_BLOCKS, max(0, cap - _BLOCKS))
        self.limit = rows if share == 1 else max(1, min(rows, int(room / (width * (1 + 1 / _GROWTH) + 4))))
        self.places: Tensor | None = None
        self._window, self._below = window, None
        if self.limit == rows:
            self.sums, self.used = like.new_zeros(rows, columns), rows
            self.peak_bytes = self.bytes
            return
        self.sums, self.used = like.new_zeros(0, columns), 0
        # the place of each row in `sums`, -1 for none, and the row at each place
        self.places = torch.full((rows,), -1, dtype=torch.int32, device=like.device)
        self.row_at = self.places.new_empty(0)
        self.peak_bytes = 0
        if is_distributed():
            self._admit_for_all()

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        held = (self.sums,) if self.places is None else (self.sums, self.places, self.row_at)
        return sum(t.nbytes for t in held)

    def add(self, ids: Tensor | None, gradient: Tensor, factor: float = 1.0) -> None:
        """Add ``factor`` times ``gradient`` (n, columns) to the rows ``ids`` (n,), which may repeat; None for all.

        Infinities and NaN count as 0.
        """
        ids, gradient = self.held_of(ids, gradient.detach())
        gradient = gradient.to(self.sums.dtype)
        if not (gradient.is_cpu and gradient.sum().isfinite()):
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        if ids is None:
            self.sums.add_(gradient, alpha=factor)
        else:
            self.sums.index_add_(0, ids if self.places is None else self.places[ids], gradient, alpha=factor)

    def held_of(self, ids: Tensor | None, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """Those of the rows ``ids`` that are held once there is room, and their ``gradient``; None for all."""
        if self.places is None:
            return ids, gradient
        if ids is None:
            ids = torch.arange(len(self.places), device=gradient.device)
        self._admit(ids)
        held = self.places[ids] >= 0
        return (ids, gradient) if held.all() else (ids[held], gradient[held])

    def decay(self, factor: float) -> None:
        """Multiply what was collected by ``factor``."""
        self.sums[: self.used] *= factor

    def held(self, start: int, stop: int, stride: int = 1) -> tuple[Tensor, Tensor]:
        """Every ``stride``-th held row from ``start`` to ``stop``, and its sums.

        Returns:
            (h,) int64, ascending, counted from ``start``; (h, columns).
        """
        if self.places is None:
            rows = torch.arange(0, stop - start, stride, device=self.sums.device)
            return rows, self.sums[start:stop:stride]
        places = self.places[start:stop]
        rows = true_at(places >= 0)[::stride]
        return rows, self.sums.index_select(0, places[rows])

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain data for `load_state_dict`."""
        return {
            "window": self._window,
            "below": self._below,
            # PyTorch saves the whole memory behind a view
            "sums": self.sums[: self.used].clone() if self.used < len(self.sums) else self.sums,
            "row_at": None if self.places is None else self.row_at[: self.used].clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` that passed `window_problem`; one of another window is ignored."""
        sums, row_at = state["sums"], state["row_at"]
        if state["window"] != self._window or (row_at is None) != (self.places is None) or len(sums) > self.limit:
            return
        if self.places is None:
            self.sums.copy_(sums)
            return
        self.sums, self.used, self._below = sums.clone(), len(sums), state["below"]
        self.row_at = row_at.clone()
        self.places.fill_(-1)
        self.places[self.row_at.long()] = torch.arange(self.used, dtype=torch.int32, device=self.places.device)
        if is_distributed():
            self._admit_for_all()

    def reduce(self) -> None:
        """All-reduce the sums, so that all processes grow the same weights."""
        if is_distributed():
            dist.all_reduce(self.sums[: self.used])

    def pool(self) -> None:
        """All-reduce the sums, and leave each process an equal share of them."""
        if is_distributed():
            self.reduce()
            self.sums[: self.used] /= dist.get_world_size()

    def _admit_for_all(self) -> None:
        """Choose the rows now: an all-reduce needs the same rows in the same places in every process."""
        self._admit(torch.arange(len(self.places), device=self.places.device))
        self._below = torch.iinfo(torch.int64).min

    def _admit(self, ids: Tensor) -> None:
        new = ids[self.places[ids] < 0].unique()
        if self._below is not None and len(new):
            new = new[self._priority(new) < self._below]
        if self.used + len(new) > self.limit:
            new = self._make_room(new)
        if not len(new):
            return
        end = self.used + len(new)
        if end > len(self.sums):
            size = min(max(end, _GROWTH * len(self.sums)), self.limit)
            self.sums = _enlarged(self.sums, self.used, size)
            self.row_at = _enlarged(self.row_at, self.used, size)
        self._place(new, torch.arange(self.used, end, device=new.device))
        self.used = end
        self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _make_room(self, new: Tensor) -> Tensor:
        """The rows of ``new`` that stay and have no place yet, after dropping those of the highest priorities."""
        rows = torch.cat([self.row_at[: self.used].long(), new])
        priority = self._priority(rows)
        kept = max(1, int(_KEPT * self.limit))
        self._below = int(priority.kthvalue(kept).values) + 1
        stays = priority < self._below
        leaving = (~stays[: self.used]).nonzero().view(-1)
        new = new[stays[self.used :]]
        self.places[rows[leaving]] = -1
        if len(new) < len(leaving):
            # fill the gaps from the end
            self._place(new, leaving[: len(new)])
            self._close(leaving[len(new) :])
            return new[:0]
        self._place(new[: len(leaving)], leaving)
        return new[len(leaving) :]

    def _close(self, gaps: Tensor) -> None:
        end = self.used - len(gaps)
        used = torch.ones(self.used, dtype=torch.bool, device=gaps.device)
        used[gaps] = False
        movers = used[end:].nonzero().view(-1) + end
        targets = gaps[gaps < end]
        self.sums[targets] = self.sums[movers]
        self.row_at[targets] = self.row_at[movers]
        self.places[self.row_at[targets].long()] = targets.int()
        self.used = end

    def _place(self, rows: Tensor, places: Tensor) -> None:
        self.sums[places] = 0
        self.row_at[places] = rows.int()
        self.places[rows] = places.int()

    def _priority(self, rows: Tensor) -> Tensor:
        """(n,) int64: the pseudo-random priorities of ``rows`` (n,), all different."""
        return scrambled(rows + (self._window << 32))


def window_problem(state: Any, weight: SparseWeight) -> str | None:
    """Why ``state`` is not a `GradientBuffer.state_dict` for ``weight``, or None."""
    if not isinstance(state, dict) or set(state) != {"window", "below", "sums", "row_at"}:
        return "must have window, below, sums and row_at"
    (rows, columns), dtype = weight.index.shape, weight.values.dtype
    sums, row_at = state["sums"], state["row_at"]
    if not isinstance(state["window"], int) or not isinstance(state["below"], int | None):
        return "window and below must be integers"
    if not isinstance(sums, Tensor) or sums.dim() != 2 or sums.shape[1] != columns or sums.dtype != dtype:
        return f"sums must be rows of {columns} columns, {dtype}"
    if row_at is None:
        return None if len(sums) == rows else f"sums must have {rows} rows"
    if not isinstance(row_at, Tensor) or row_at.shape != sums.shape[:1] or row_at.dtype != torch.int32:
        return "row_at must name the row of each of the sums"
    if len(row_at) and (row_at.min() < 0 or row_at.max() >= rows or len(row_at.unique()) < len(row_at)):
        return f"row_at must be different rows from 0 to {rows - 1}"
    return None


def scrambled(numbers: Tensor) -> Tensor:
    """A hash of each of ``numbers``, int64, in the same shape; different numbers have different hashes."""
    mixed = numbers * -7046029254386353131
    mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * -4658895280553007687
    return mixed ^ ((mixed >> 29) & 0x7FFFFFFFF)


def _enlarged(old: Tensor, used: int, size: int) -> Tensor:
    new = old.new_empty(size, *old.shape[1:])
    new[:used] = old[:used]
    return new


def is_distributed() -> bool:
    """Whether other processes train the same model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
