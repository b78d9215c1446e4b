"""A sparse table that is multiplied with, a few of its rows at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.private_torch import gradient_of_weights
from recbole_dsl.sparse.gather import all_bits, signed_view

# bytes of a processor's second cache, which a chunk's scores are to fit in beside the vectors; twice that, for
# fewer calls of PyTorch's functions
_CACHE = 2**20
# entries of a chunk's scores on other devices, where few large kernels are better than many small ones
_LARGE = 2**25
# samples that are gone through together, so that the vectors fit into the cache
SAMPLES = 256
# alive entries from which on loading what was compiled, or compiling, is worth it
_WORTH_COMPILING = 2**18
# alive entries from which on, as a share of all, products of dense chunks are faster
_DENSE = 0.3


@dataclass(frozen=True)
class Table:
    """Rows of a sparse weight.

    Attributes:
        values: (nnz,) floating-point.
        columns: (nnz,) of any integer type, ascending within each row.
        row_offsets: (rows + 1,) integer: row ``i`` owns the slots ``row_offsets[i]`` to ``row_offsets[i + 1]``,
            counted from ``row_offsets[0]``.
        n_columns: width.
        sink: called in the backward pass as ``sink(ids, gradient)`` with the dense gradient of some rows, alive or
            not: ids (n,) int64 and (n, columns), or None.
        first_row: the number that the first row has for the sink.
    """

    values: Tensor
    columns: Tensor
    row_offsets: Tensor
    n_columns: int
    sink: Callable[[Tensor, Tensor], None] | None = None
    first_row: int = 0

    @property
    def n_rows(self) -> int:
        return len(self.row_offsets) - 1

    @property
    def n_vectors(self) -> int:
        """Samples to go through together."""
        return SAMPLES if self.values.device.type == "cpu" else 2**30

    @property
    def is_dense(self) -> bool:
        """Whether products of dense chunks are to be made, instead of those of the alive entries alone."""
        on_cpu = self.values.device.type == "cpu"
        return not on_cpu or len(self.values) > _DENSE * self.n_rows * self.n_columns

    @property
    def is_worth_compiling(self) -> bool:
        """Whether Numba's loops, which take one thread, are faster than PyTorch's functions, if it is there."""
        on_cpu = self.values.device.type == "cpu" and self.values.dtype in (torch.float32, torch.float64)
        return on_cpu and len(self.values) >= _WORTH_COMPILING and torch.get_num_threads() <= 2

    def narrow(self, start: int, stop: int) -> "Table":
        """The rows from ``start`` to ``stop``; its values are a differentiable part of these."""
        base, first, last = self.row_offsets[[0, start, stop]].tolist()
        return replace(
            self,
            values=self.values[first - base : last - base],
            columns=self.columns[first - base : last - base],
            row_offsets=self.row_offsets[start : stop + 1],
            first_row=self.first_row + start,
        )

    def row_of_slots(self) -> Tensor:
        """(nnz,) int64, ascending."""
        return torch.repeat_interleave(self.row_offsets.long().diff(), output_size=len(self.values))

    def dense(self) -> Tensor:
        """(rows, columns), differentiable."""
        positions = self.row_of_slots() * self.n_columns + as_int64(self.columns)
        out = self.values.new_zeros(self.n_rows * self.n_columns).index_copy(0, positions, self.values)
        return out.view(self.n_rows, self.n_columns)

    def bounds(self, n_vectors: int) -> list[tuple[int, int]]:
        """First and end row of chunks whose products with ``n_vectors`` vectors fit into a processor's cache."""
        width = max(1, min(n_vectors, self.n_vectors))
        if self.values.device.type == "cpu":
            size = _CACHE if self.is_worth_compiling and compiled_products() else 2 * _CACHE
            height = max(256, (size // self.values.element_size() - self.n_columns * width) // width)
        else:
            height = max(256, _LARGE // width)
        return [(start, min(start + height, self.n_rows)) for start in range(0, self.n_rows, height)]

    def chunks(self, bounds: list[tuple[int, int]]) -> "Iterator[Chunk]":
        """The rows between ``bounds``, which follow one another from the first row on."""
        slots = self.row_offsets[[0, *(stop for _, stop in bounds)]].tolist()
        for (start, stop), first, last in zip(bounds, slots, slots[1:]):
            entries = slice(first - slots[0], last - slots[0])
            yield Chunk(
                start,
                stop,
                entries,
                self.row_offsets[start : stop + 1],
                self.columns[entries],
                self.n_columns,
                compiled_products() if self.is_worth_compiling else None,
            )


@dataclass(frozen=True)
class Chunk:
    """Which entries of the rows from ``start`` to ``stop`` are alive.

    Attributes:
        entries: their slots in the table.
        row_offsets: (rows + 1,) of the table.
        narrow_columns: (entries,) of the table's type.
        compiled: the products as Numba compiles them, or None for those by PyTorch's functions.
    """

    start: int
    stop: int
    entries: slice
    row_offsets: Tensor
    narrow_columns: Tensor
    n_columns: int
    compiled: ModuleType | None

    @cached_property
    def offsets(self) -> Tensor:
        """(rows + 1,) int64, counted from the first entry."""
        return self.row_offsets.long() - self.row_offsets[0]

    @cached_property
    def columns(self) -> Tensor:
        """(entries,) int64."""
        return as_int64(self.narrow_columns)

    @cached_property
    def rows(self) -> Tensor:
        """(entries,) int64: the row of each entry, counted from ``start``."""
        return torch.repeat_interleave(self.offsets.diff(), output_size=len(self.columns))

    @cached_property
    def positions(self) -> Tensor:
        return self.rows * self.n_columns + self.columns

    @cached_property
    def _by_column(self) -> tuple[Tensor, Tensor]:
        """The entries in the order of their columns, and where each column begins and the last one ends."""
        # numbers of up to 16 bits are sorted digit by digit, many times faster than by comparing
        order = torch.from_numpy(np.argsort(self.narrow_columns.numpy(), kind="stable"))
        ends = torch.bincount(self.columns, minlength=self.n_columns).cumsum(0)
        return order, F.pad(ends, (1, 0))

    def dense(self, values: Tensor) -> Tensor:
        """(rows, columns)."""
        height = self.stop - self.start
        out = values.new_zeros(height * self.n_columns).index_copy_(0, self.positions, values)
        return out.view(height, self.n_columns)

    def times(self, values: Tensor, vectors: Tensor, out: Tensor) -> Tensor:
        """The product with ``vectors`` (columns, n): (rows, n), perhaps in the memory of ``out``, of that shape.

        It costs what the entries cost.
        """
        if self.compiled is None:
            return self._bag(self.columns, vectors, self.offsets, values)
        self.compiled.times(*self._arrays(values), vectors.numpy(), out.numpy())
        return out

    def add_gradients(
        self, values: Tensor, left: Tensor, right: Tensor, of_values: Tensor, of_vectors: Tensor
    ) -> None:
        """Add what a gradient ``left`` (rows, n) of `times` gives for both operands, which ``right`` stands for.

        Args:
            right: (columns, n) the vectors, for the gradient of the values.
            of_values: (entries,) gets the sum.
            of_vectors: (columns, n) gets the sum.
        """
        if not len(values):
            return
        if self.compiled is not None:
            arrays = (tensor.numpy() for tensor in (left, right, of_values, of_vectors))
            self.compiled.add_gradients(*self._arrays(values), *arrays)
            return
        of_values += gradient_of_weights(left, right, self.columns, self.offsets, self.rows)
        order, starts = self._by_column
        of_vectors += self._bag(self.rows[order], left, starts, values[order])

    def _arrays(self, values: Tensor) -> tuple:
        return values.numpy(), self.narrow_columns.numpy(), self.row_offsets.numpy()

    @staticmethod
    def _bag(ids: Tensor, vectors: Tensor, starts: Tensor, values: Tensor) -> Tensor:
        return F.embedding_bag(
            ids, vectors, starts, mode="sum", per_sample_weights=values, include_last_offset=True
        )


def compiled_products() -> ModuleType | None:
    """The loops that Numba compiles, if it is installed."""
    return compiled_loops("recbole_dsl.sparse.softmax.compiled_products")


def as_int64(columns: Tensor) -> Tensor:
    """``columns``, of an unsigned type, as int64."""
    return signed_view(columns).long() & all_bits(columns)
