"""Rewriting the entries of a sparse weight, in place, when its topology changes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import CompressedRows, new_offsets, rank, signed_view, true_at

# (number of a block, positions of its entries) -> slots of those that go, counted from the block's first, and
# positions of those that come; both int64 and ascending
Change = Callable[[int, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rewritten:
    """The new topology, and the entries of each tensor in its order."""

    columns: Tensor
    row_offsets: Tensor
    entries: list[Tensor]


def rewrite(index: CompressedRows, change: Change, nnz: int, tensors: list[Tensor]) -> Rewritten:
    """Put the entries of ``tensors``, each (nnz,), in the order of the new topology; new ones are zero.

    With as many entries as before the columns and ``tensors`` are written in place: an entry waits until the one
    at its new slot has been read.

    Args:
        change: as in `SparseWeight.exchange`.
        nnz: number of entries then.
    """
    old = [index.columns, *tensors]
    in_place = nnz == len(index.columns)
    new = old if in_place else [t.new_empty(nnz) for t in old]
    offsets = new_offsets(index.n_rows, nnz, index.columns.device)
    waiting: deque[list[Tensor]] = deque()
    written = 0
    for number, (start, stop, first, last) in enumerate(index.blocks()):
        before = index.positions_in(start, stop, first, last)
        gone, new_positions = change(number, before)
        rows = [
            torch.div(p, index.n_columns, rounding_mode="floor")
            for p in (before.index_select(0, gone), new_positions)
        ]
        less, more = (torch.bincount(some, minlength=stop - start) for some in rows)
        offsets[start + 1 : stop + 1] = index.row_offsets[start : stop + 1].diff() - less + more
        source, fresh = _merge(before, gone, new_positions)
        columns = _gathered(signed_view(index.columns[first:last]), source, fresh)
        columns[fresh] = (new_positions - rows[1] * index.n_columns).to(columns.dtype)
        chunk = [columns.view(index.columns.dtype)]
        chunk += [_gathered(t[first:last], source, fresh) for t in tensors]
        waiting.append(chunk)
        while waiting and written + len(waiting[0][0]) <= (last if in_place else nnz):
            written = _write(new, waiting.popleft(), written)
    while waiting:
        written = _write(new, waiting.popleft(), written)
    return Rewritten(new[0], offsets.cumsum_(0), new[1:])


def exchanged(positions: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """What a `Change` returns to move the entries of a block from ``positions`` (n,) to where ``alive`` is."""
    new = alive.index_fill(0, positions, False)
    return true_at(~alive[positions]), true_at(new)


def _merge(before: Tensor, gone: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """The old slot of each entry, 0 for a new one, and the slots of the ``new`` positions, each (n,) int64."""
    kept = true_at(torch.ones(len(before), dtype=torch.bool, device=before.device).index_fill_(0, gone, False))
    fresh = rank(before.index_select(0, kept), new) + torch.arange(len(new), device=new.device)
    size = len(kept) + len(new)
    moved = true_at(torch.ones(size, dtype=torch.bool, device=new.device).index_fill_(0, fresh, False))
    return torch.zeros(size, dtype=torch.int64, device=new.device).index_copy_(0, moved, kept), fresh


def _gathered(entries: Tensor, source: Tensor, fresh: Tensor) -> Tensor:
    if not len(entries):
        return entries.new_zeros(len(source))
    return entries.index_select(0, source).index_fill_(0, fresh, 0)


def _write(tensors: list[Tensor], chunk: list[Tensor], start: int) -> int:
    stop = start + len(chunk[0])
    for tensor, part in zip(tensors, chunk):
        tensor[start:stop] = part
    return stop
