"""Going through a sparse weight block of rows by block of rows, and writing its entries anew in place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.sparse.gather import smallest_unsigned

if TYPE_CHECKING:
    from recbole_dsl.sparse.weight import SparseWeight

# of a block's number and the positions of its alive entries: which of its positions are alive then, bool
Change = Callable[[int, Tensor], Tensor]

# positions in a block: small enough to stay in a processor's cache, large enough to be worth its kernels' start
_BLOCK = 2**20


@dataclass(frozen=True)
class Rewritten:
    """The new topology, and the entries of each tensor in its order."""

    columns: Tensor
    row_offsets: Tensor
    entries: list[Tensor]


def row_blocks(n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    """First row and end row of each block. All but the last have a multiple of 8 rows, so of 8 positions."""
    height = max(8, _BLOCK // max(n_columns, 1) // 8 * 8)
    for start in range(0, n_rows, height):
        yield start, min(start + height, n_rows)


def blocks_of(n_rows: int, n_columns: int, alive: bool) -> Iterator[Tensor]:
    """For each of `row_blocks` (rows of the block, columns), bool: all of them ``alive`` or none."""
    for start, stop in row_blocks(n_rows, n_columns):
        yield torch.full((stop - start, n_columns), alive)


def rewrite(weight: SparseWeight, change: Change, nnz: int, tensors: list[Tensor]) -> Rewritten:
    """Order the entries of ``tensors``, shaped like the weight's values, by what is alive then; new ones are zero.

    With as many entries as before the columns and the tensors are written in place: an entry waits until what
    was at its new slot has been read.

    Args:
        change: as in `SparseWeight.exchange`.
        nnz: how many are alive in all.
    """
    old = [weight.columns, *tensors]
    in_place = nnz == weight.nnz
    new = old if in_place else [t.new_empty(nnz) for t in old]
    offsets = new_offsets(weight.n_rows, nnz, weight.values.device)
    waiting: deque[list[Tensor]] = deque()
    written = 0
    for number, (start, stop, first, last) in enumerate(weight.row_blocks()):
        before = weight.positions_in(start, stop, first, last)
        alive = change(number, before)
        after = true_at(alive)
        offsets[start + 1 : stop + 1], columns = compress(after, stop - start, weight.n_columns)
        chunk = [columns]
        chunk += [_moved(tensor[first:last], before, after, len(alive)) for tensor in tensors]
        waiting.append(chunk)
        while waiting and written + len(waiting[0][0]) <= (last if in_place else nnz):
            written = _write(new, waiting.popleft(), written)
    while waiting:
        written = _write(new, waiting.popleft(), written)
    return Rewritten(new[0], offsets.cumsum_(0), new[1:])


def compress(positions: Tensor, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    """How many of a block's ``positions`` (n,) are in each row, (rows,) int64, and the column of each, (n,)."""
    rows = torch.div(positions, n_columns, rounding_mode="floor")
    columns = (positions - rows * n_columns).to(smallest_unsigned(n_columns))
    return torch.bincount(rows, minlength=n_rows), columns


def true_at(mask: Tensor) -> Tensor:
    """(n,) int64, ascending: where ``mask``, one-dimensional and bool, is True."""
    if mask.device.type == "cpu":
        # takes half the time of PyTorch's
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().view(-1)


def n_true(mask: Tensor) -> int:
    """How many entries of ``mask``, bool, are True; unlike its sum it takes no memory."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.count_nonzero())


def new_offsets(n_rows: int, nnz: int, device: Optional[torch.device] = None) -> Tensor:
    """(rows + 1,) zeros, of the smallest type that counts ``nnz``: for the number of each row's entries, and their
    running sum."""
    return torch.zeros(n_rows + 1, dtype=torch.int32 if nnz < 2**31 else torch.int64, device=device)


def _moved(entries: Tensor, before: Tensor, after: Tensor, size: int) -> Tensor:
    """Entries at the positions ``before`` of ``size``, read at the positions ``after``."""
    return entries.new_zeros(size).index_copy_(0, before, entries).index_select(0, after)


def _write(tensors: list[Tensor], chunk: list[Tensor], start: int) -> int:
    stop = start + len(chunk[0])
    for tensor, part in zip(tensors, chunk):
        tensor[start:stop] = part
    return stop
