"""Matrices in compressed rows (CSR): their index, their products, and going through them block by block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.private_torch import gradient_of_weights

# positions in a block: small enough to stay in a processor's cache, large enough to be worth its kernels' start
_BLOCK = 2**20
# entries up to which their positions are kept once they were asked for
_POSITIONS_KEPT = 2**17
_SIGNED = {torch.uint8: torch.int8, torch.uint16: torch.int16, torch.uint32: torch.int32, torch.int64: torch.int64}
_ALL_BITS = {torch.uint8: 2**8 - 1, torch.uint16: 2**16 - 1, torch.uint32: 2**32 - 1, torch.int64: -1}

GradientSink = Callable[[Tensor | None, Tensor], None]


@dataclass(frozen=True, eq=False)
class CompressedRows:
    """Some rows of a sparse matrix, or which of their entries exist.

    A *slot* is the index of an entry in ``values``. A *position* is ``row * n_columns + column``.

    Attributes:
        n_columns: width of the matrix.
        columns: (nnz,) integers of any type: the column of each entry, row by row.
        row_offsets: (rows + 1,) integers: row ``i`` owns the slots from ``row_offsets[i]`` to
            ``row_offsets[i + 1]``, counted from ``row_offsets[0]``.
        values: (nnz,) floating-point; None for the index alone.
        sink: called in the backward pass as ``sink(ids, gradient)`` with the dense gradient of some rows:
            (n,) int64 and (n, columns), or None.
        first_row: the number that the sink knows the first row by.
        loops: the module of compiled products; None for PyTorch's functions.
        known: what was found out about the index, shared by all that have it with other values.
    """

    n_columns: int
    columns: Tensor
    row_offsets: Tensor
    values: Tensor | None = None
    sink: GradientSink | None = None
    first_row: int = 0
    loops: ModuleType | None = None
    known: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_coo(cls, rows: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> "CompressedRows":
        """Compress entries (nnz,) in any order; those at the same position stay apart, in the order given."""
        # half the bytes to read in each product
        index = torch.int32 if max(len(rows), *shape) < 2**31 else torch.int64
        order = rows.argsort(stable=True)
        offsets = F.pad(torch.bincount(rows, minlength=shape[0]).cumsum(0), (1, 0)).to(index)
        return cls(shape[1], columns[order].to(index), offsets, values[order])

    @property
    def n_rows(self) -> int:
        return self.row_offsets.numel() - 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_rows, self.n_columns

    @cached_property
    def indices(self) -> Tensor:
        """(nnz,) `columns` as int32 or int64, which PyTorch indexes by."""
        return self.columns if self.columns.dtype in (torch.int32, torch.int64) else as_int64(self.columns)

    @cached_property
    def offsets(self) -> Tensor:
        """(rows + 1,) `row_offsets` from 0 on, of the type of `indices`."""
        return self.row_offsets.to(self.indices.dtype) - self.row_offsets[0]

    @cached_property
    def rows(self) -> Tensor:
        """(nnz,) int64, ascending: the row of each entry."""
        return torch.repeat_interleave(self.row_offsets.long().diff(), output_size=len(self.columns))

    @property
    def longest_row(self) -> int:
        """The most entries that a row has."""
        if "longest_row" not in self.known:
            self.known["longest_row"] = int(self.row_offsets.diff().max()) if self.n_rows else 0
        return self.known["longest_row"]

    def positions(self) -> Tensor:
        """(nnz,) int64, ascending where columns ascend within each row."""
        if "positions" in self.known:
            return self.known["positions"]
        positions = self.positions_in(0, self.n_rows, 0, len(self.columns))
        if len(positions) <= _POSITIONS_KEPT:
            self.known["positions"] = positions
        return positions

    def positions_in(self, start: int, stop: int, first: int, last: int) -> Tensor:
        """(last - first,) int64: where the entries of a block are in it; its bounds are those of `blocks`."""
        rows = torch.repeat_interleave(self.row_offsets[start : stop + 1].diff(), output_size=last - first)
        return rows.long() * self.n_columns + self.columns[first:last].long()

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """Every row once, in blocks that bound the memory of a pass: first row, end row, first slot, end slot."""
        bounds = list(row_blocks(self.n_rows, self.n_columns))
        slots = self._slots_at(bounds)
        for (start, stop), first, last in zip(bounds, slots, slots[1:]):
            yield start, stop, first, last

    def narrow(self, start: int, stop: int) -> "CompressedRows":
        """The rows from ``start`` to ``stop``; the values are a differentiable part of these."""
        return self._part(start, stop, slice(*self._slots_at([(0, start), (start, stop)])[1:]))

    def chunks(
        self, bounds: Sequence[tuple[int, int]], loops: ModuleType | None = None
    ) -> "Iterator[tuple[slice, CompressedRows]]":
        """The rows between ``bounds``, which follow one another from the first row on, with their slots."""
        slots = self._slots_at(bounds)
        for (start, stop), first, last in zip(bounds, slots, slots[1:]):
            yield slice(first, last), self._part(start, stop, slice(first, last), loops)

    def _slots_at(self, bounds: Sequence[tuple[int, int]]) -> list[int]:
        first, *ends = self.row_offsets[[0, *(stop for _, stop in bounds)]].tolist()
        return [0, *(end - first for end in ends)]

    def _part(self, start: int, stop: int, slots: slice, loops: ModuleType | None = None) -> "CompressedRows":
        return replace(
            self,
            columns=self.columns[slots],
            row_offsets=self.row_offsets[start : stop + 1],
            values=None if self.values is None else self.values[slots],
            first_row=self.first_row + start,
            loops=loops,
            known={},
        )

    def entries_of(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The entries of the rows ``ids`` (n,): each one's index in ``ids``, slot and column, int64."""
        starts, ends = self.row_offsets.unfold(0, 2, 1).index_select(0, ids).long().unbind(1)
        counts = ends - starts
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ids) else 0
        which = torch.repeat_interleave(counts, output_size=total)
        slots = torch.arange(total, device=ids.device) + (starts - ends + counts).index_select(0, which)
        return which, slots, columns_at(self.columns, slots)

    def padded_rows(self, ids: Tensor) -> Tensor:
        """The dense rows ``ids`` (n,): (n, columns), differentiable in the values, without waiting for the device.

        To ask how many entries the rows have would make the host wait until the device has done all that it was
        told before. So each row is read as if it had as many entries as the longest one.
        """
        starts, ends = self.row_offsets.unfold(0, 2, 1).index_select(0, ids).long().unbind(1)
        slots = starts.unsqueeze(1) + torch.arange(self.longest_row, device=ids.device)
        is_entry = slots < ends.unsqueeze(1)
        slots = slots.clamp_max(len(self.values) - 1).view(-1)
        # what is no entry goes to a column of its own, which is left out
        columns = torch.where(is_entry, columns_at(self.columns, slots).view(is_entry.shape), self.n_columns)
        alive = self.values.index_select(0, slots).view(is_entry.shape) * is_entry
        wide = self.values.new_zeros(len(ids), self.n_columns + 1).scatter(1, columns, alive)
        return wide[:, : self.n_columns].contiguous()

    def dense(self) -> Tensor:
        """(rows, columns), differentiable in the values."""
        out = self.values.new_zeros(self.n_rows * self.n_columns)
        return out.index_copy(0, self.positions(), self.values).view(self.shape)

    def times(self, matrix: Tensor, out: Tensor | None = None) -> Tensor:
        """The product with a dense ``matrix`` (columns, k): (rows, k), perhaps in the memory of ``out``.

        It costs what the entries cost.
        """
        if self.loops is not None and out is not None:
            self.loops.times(*self._arrays(), matrix.numpy(), out.numpy())
            return out
        if not matrix.is_cpu:
            return self.in_csr @ matrix
        # a bag for each row: several times faster than PyTorch's products of COO and CSR matrices
        return weighted_sums(self.indices, matrix.contiguous(), self.offsets, self.values)

    def add_gradients(self, left: Tensor, right: Tensor, of_values: Tensor, of_matrix: Tensor) -> None:
        """Add the gradients of both operands of `times`, given the gradient ``left`` (rows, k) of the product.

        Args:
            right: (columns, k) the matrix, for the gradient of the values.
            of_values: (nnz,) gets the sum.
            of_matrix: (columns, k) gets the sum.
        """
        if not len(self.values):
            return
        if self.loops is not None:
            arrays = (tensor.numpy() for tensor in (left, right, of_values, of_matrix))
            self.loops.add_gradients(*self._arrays(), *arrays)
            return
        of_values += gradient_of_weights(left, right, self.indices.long(), self.offsets.long(), self.rows)
        order, starts = self._by_column
        of_matrix += weighted_sums(self.rows[order], left, starts, self.values[order])

    @property
    def transposed(self) -> "CompressedRows":
        """The transpose, (columns, rows); the matrix itself if it is exactly symmetric."""
        return self._distinct_transpose or self

    @cached_property
    def _distinct_transpose(self) -> "CompressedRows | None":
        rows = torch.arange(self.n_rows, device=self.columns.device).repeat_interleave(self.row_offsets.diff())
        other = CompressedRows.from_coo(self.columns.long(), rows, self.values, self.shape[::-1])
        names = "row_offsets", "columns", "values"
        is_same = all(torch.equal(getattr(self, name), getattr(other, name)) for name in names)
        return None if is_same else other

    @cached_property
    def in_csr(self) -> Tensor:
        """The same as a tensor of PyTorch, for devices that have a fast product with it."""
        entries = self.row_offsets, self.columns, self.values
        return torch.sparse_csr_tensor(*entries, self.shape, check_invariants=False)

    @cached_property
    def _by_column(self) -> tuple[Tensor, Tensor]:
        """The slots in the order of their columns, and where each column begins and the last one ends."""
        # numbers of up to 16 bits are sorted digit by digit, many times faster than by comparing
        order = torch.from_numpy(np.argsort(self.columns.numpy(), kind="stable"))
        return order, F.pad(torch.bincount(self.indices, minlength=self.n_columns).cumsum(0), (1, 0))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.values.numpy(), self.columns.numpy(), self.row_offsets.numpy()


def row_blocks(n_rows: int, n_columns: int) -> Iterator[tuple[int, int]]:
    """First row and end row of each block. All but the last have a multiple of 8 rows, so of 8 positions."""
    height = max(8, _BLOCK // max(n_columns, 1) // 8 * 8)
    for start in range(0, n_rows, height):
        yield start, min(start + height, n_rows)


def uniform_blocks(n_rows: int, n_columns: int, alive: bool) -> Iterator[Tensor]:
    """For each of `row_blocks` (rows of the block, columns), bool: all of them ``alive`` or none."""
    for start, stop in row_blocks(n_rows, n_columns):
        yield torch.full((stop - start, n_columns), alive)


def compress(positions: Tensor, n_rows: int, n_columns: int) -> tuple[Tensor, Tensor]:
    """How many of a block's ``positions`` (n,) are in each row, (rows,) int64, and the column of each, (n,)."""
    rows = torch.div(positions, n_columns, rounding_mode="floor")
    columns = (positions - rows * n_columns).to(smallest_unsigned(n_columns))
    return torch.bincount(rows, minlength=n_rows), columns


def new_offsets(n_rows: int, nnz: int, device: torch.device | None = None) -> Tensor:
    """(rows + 1,) zeros, of the smallest type that counts ``nnz``."""
    return torch.zeros(n_rows + 1, dtype=torch.int32 if nnz < 2**31 else torch.int64, device=device)


def smallest_unsigned(n: int) -> torch.dtype:
    """The smallest unsigned integer type that holds ``0 .. n - 1``; int64 where that has more than 32 bits."""
    for bits, dtype in ((8, torch.uint8), (16, torch.uint16), (32, torch.uint32)):
        if n <= 2**bits:
            return dtype
    return torch.int64


def signed_view(columns: Tensor) -> Tensor:
    """The same bits in the signed type of the same width: few of PyTorch's kernels know the unsigned types."""
    return columns.view(_SIGNED[columns.dtype])


def as_int64(columns: Tensor) -> Tensor:
    """``columns``, of an unsigned type, as int64."""
    return signed_view(columns).long() & _ALL_BITS[columns.dtype]


def columns_at(columns: Tensor, slots: Tensor) -> Tensor:
    """``columns[slots]``, of an unsigned type, as int64."""
    return signed_view(columns).index_select(0, slots).long() & _ALL_BITS[columns.dtype]


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


def weighted_sums(ids: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """For each of the ``starts``, the sum of the ``rows`` of ``ids`` up to the next one, times ``weights``."""
    return F.embedding_bag(ids, rows, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)
