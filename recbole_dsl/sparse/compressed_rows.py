"""The index of a matrix in compressed rows, and going through it block of rows by block of rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.sparse.gather import smallest_unsigned

# positions in a block: small enough to stay in a processor's cache, large enough to be worth its kernels' start
_BLOCK = 2**20


@dataclass(frozen=True)
class CompressedRows:
    """Which entries of a matrix (rows, ``n_columns``) are alive.

    Attributes:
        n_columns: width of the matrix.
        columns: (nnz,) the column of each alive entry, row by row, ascending within each.
        row_offsets: (rows + 1,) row ``i`` owns the slots ``row_offsets[i]`` to ``row_offsets[i + 1]``.
    """

    n_columns: int
    columns: Tensor
    row_offsets: Tensor

    @property
    def n_rows(self) -> int:
        return len(self.row_offsets) - 1

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Every row once, in blocks that bound the memory of a pass: first row, end row, first slot, end slot."""
        bounds = list(row_blocks(self.n_rows, self.n_columns))
        slots = self.row_offsets[[0, *(stop for _, stop in bounds)]].tolist()
        for (start, stop), first, last in zip(bounds, slots, slots[1:]):
            yield start, stop, first, last

    def positions_in(self, start: int, stop: int, first: int, last: int) -> Tensor:
        """(last - first,) int64: where a block's alive entries are in it, row by row, ascending."""
        rows = torch.repeat_interleave(self.row_offsets[start : stop + 1].diff(), output_size=last - first)
        return rows.long() * self.n_columns + self.columns[first:last].long()


def row_blocks(n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    """First row and end row of each block. All but the last have a multiple of 8 rows, so of 8 positions."""
    height = max(8, _BLOCK // max(n_columns, 1) // 8 * 8)
    for start in range(0, n_rows, height):
        yield start, min(start + height, n_rows)


def blocks_of(n_rows: int, n_columns: int, alive: bool) -> Iterator[Tensor]:
    """For each of `row_blocks` (rows of the block, columns), bool: all of them ``alive`` or none."""
    for start, stop in row_blocks(n_rows, n_columns):
        yield torch.full((stop - start, n_columns), alive)


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


def rank(sorted: Tensor, values: Tensor) -> Tensor:
    """(n,) int64: how many of ``sorted``, ascending, are less than each of ``values`` (n,), ascending."""
    if values.device.type == "cpu":
        # takes a third of the time of PyTorch's, which does not go by the order of the values
        return torch.from_numpy(np.searchsorted(sorted.numpy(), values.numpy()))
    return torch.searchsorted(sorted, values)


def n_true(mask: Tensor) -> int:
    """How many entries of ``mask``, bool, are True; unlike its sum it takes no memory."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.count_nonzero())


def new_offsets(n_rows: int, nnz: int, device: torch.device | None = None) -> Tensor:
    """(rows + 1,) zeros, of the smallest type that counts ``nnz``: for the number of each row's entries, and their
    running sum."""
    return torch.zeros(n_rows + 1, dtype=torch.int32 if nnz < 2**31 else torch.int64, device=device)
