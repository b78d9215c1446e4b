"""Writing the entries of a sparse weight anew, in place, when other ones become alive."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

import torch
from torch import Tensor

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.sparse.compressed_rows import CompressedRows, new_offsets, true_at
from recbole_dsl.sparse.gather import signed_view

# of a block's number and what gives the positions of its alive entries: the slots of those that go, counted from
# the block's first, and the positions of those that come, which are not alive; both int64 and ascending
Change = Callable[[int, Callable[[], Tensor]], tuple[Tensor, Tensor]]

# of how many entries on Numba's loops are worth the time that they take to load
_WORTH_COMPILING = 2**21


@dataclass(frozen=True)
class Rewritten:
    """The new topology, and the entries of each tensor in its order."""

    columns: Tensor
    row_offsets: Tensor
    entries: list[Tensor]


def rewrite(index: CompressedRows, change: Change, nnz: int, tensors: list[Tensor]) -> Rewritten:
    """Order the entries of ``tensors``, each (nnz,), by what is alive then; new ones are zero.

    With as many entries as before the columns and ``tensors`` are written in place: an entry waits until what
    was at its new slot has been read.

    Args:
        change: as in `SparseWeight.exchange`.
        nnz: how many are alive in all.
    """
    old = [index.columns, *tensors]
    in_place = nnz == len(index.columns)
    new = old if in_place else [t.new_empty(nnz) for t in old]
    offsets = new_offsets(index.n_rows, nnz, index.columns.device)
    waiting: deque[list[Tensor]] = deque()
    written = 0
    loops = _loops(old, nnz)
    for number, (start, stop, first, last) in enumerate(index.blocks()):
        before = cache(partial(index.positions_in, start, stop, first, last))
        gone, come = change(number, before)
        block = CompressedRows(index.n_columns, index.columns[first:last], index.row_offsets[start : stop + 1])
        entries = [t[first:last] for t in tensors]
        if loops is None:
            counts, chunk = _merge(block, before(), gone, come, entries)
        else:
            counts, chunk = _merge_compiled(loops, block, gone, come, entries)
        offsets[start + 1 : stop + 1] = counts
        waiting.append(chunk)
        while waiting and written + len(waiting[0][0]) <= (last if in_place else nnz):
            written = _write(new, waiting.popleft(), written)
    while waiting:
        written = _write(new, waiting.popleft(), written)
    return Rewritten(new[0], offsets.cumsum_(0), new[1:])


def exchanged(positions: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """What a `Change` returns of a block whose entries, at ``positions`` (n,), are to be where ``alive`` is."""
    new = alive.index_fill(0, positions, False)
    return true_at(~alive[positions]), true_at(new)


def _loops(tensors: list[Tensor], nnz: int) -> ModuleType | None:
    """Those that Numba compiles, where they are faster than PyTorch's functions."""
    known = all(t.device.type == "cpu" and t.dtype not in (torch.float16, torch.bfloat16) for t in tensors)
    return compiled_loops("recbole_dsl.sparse.compiled_merge") if known and nnz >= _WORTH_COMPILING else None


def _merge(
    block: CompressedRows, before: Tensor, gone: Tensor, come: Tensor, tensors: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """How many entries each row of ``block`` has then, (rows,), their columns and those of ``tensors``, (new,).

    Args:
        before: the positions of the entries now.
        gone, come: as `Change` returns them.
    """
    rows = [torch.div(p, block.n_columns, rounding_mode="floor") for p in (before[gone], come)]
    less, more = (torch.bincount(some, minlength=block.n_rows) for some in rows)
    kept = true_at(torch.ones(len(before), dtype=torch.bool, device=before.device).index_fill_(0, gone, False))
    fresh = torch.searchsorted(before[kept], come) + torch.arange(len(come), device=come.device)
    size = len(kept) + len(come)
    moved = true_at(torch.ones(size, dtype=torch.bool, device=come.device).index_fill_(0, fresh, False))
    columns = _scattered(signed_view(block.columns), kept, moved, size)
    columns[fresh] = (come - rows[1] * block.n_columns).to(columns.dtype)
    chunk = [columns.view(block.columns.dtype), *(_scattered(t, kept, moved, size) for t in tensors)]
    return block.row_offsets.diff() - less + more, chunk


def _merge_compiled(
    loops: ModuleType, block: CompressedRows, gone: Tensor, come: Tensor, tensors: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """As `_merge`."""
    size = len(block.columns) - len(gone) + len(come)
    columns, sources = block.columns.new_empty(size), torch.empty(size, dtype=torch.int32)
    counts = torch.empty(block.n_rows, dtype=torch.int32)
    now = block.columns.numpy(), block.row_offsets.numpy(), block.n_columns
    loops.merge(*now, gone.numpy(), come.numpy(), columns.numpy(), counts.numpy(), sources.numpy())
    chunk = [columns, *(t.new_empty(size) for t in tensors)]
    for entries, out in zip(tensors, chunk[1:]):
        loops.take(entries.numpy(), sources.numpy(), out.numpy())
    return counts, chunk


def _scattered(entries: Tensor, kept: Tensor, moved: Tensor, size: int) -> Tensor:
    return entries.new_zeros(size).index_copy_(0, moved, entries.index_select(0, kept))


def _write(tensors: list[Tensor], chunk: list[Tensor], start: int) -> int:
    stop = start + len(chunk[0])
    for tensor, part in zip(tensors, chunk):
        tensor[start:stop] = part
    return stop
