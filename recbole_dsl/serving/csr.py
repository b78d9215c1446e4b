"""Matrices in CSR, and lists of ids in the same form: what all of serving works on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CSR:
    """A matrix in compressed sparse row format, or lists of ids.

    The columns of row ``i`` are ``columns[offsets[i]:offsets[i + 1]]``; its values are at the same places.

    Attributes:
        offsets: (n_rows + 1,) int64, from 0, ascending.
        columns: (nnz,) integers: the ids in each list, or the columns of a matrix, ascending within each row. (0,)
            for a full matrix, whose rows have every column.
        values: (nnz,) float32; None for lists.
        n_columns: the width of a matrix; 0 for lists.
        factors: (n_rows,) float32 by which the rows of a matrix are multiplied; None for 1.
    """

    offsets: Ids
    columns: NDArray
    values: Any = None
    n_columns: int = 0
    factors: Floats | None = None

    @classmethod
    def of_lists(cls, lists: Iterable[Sequence[int] | NDArray]) -> "CSR":
        """The ``lists`` of ids, one a row."""
        parts = [np.asarray(part, np.int64) for part in lists]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return cls(offsets_of([len(part) for part in parts]), ids)

    @classmethod
    def of_nonzero(cls, dense: Floats) -> "CSR":
        """The entries of ``dense`` (rows, columns) that are not 0."""
        rows, columns = np.nonzero(dense)
        offsets = offsets_of(np.bincount(rows, minlength=len(dense)))
        return cls(offsets, columns.astype(column_type(dense.shape[1])), dense[rows, columns], dense.shape[1])

    @classmethod
    def of_full(cls, dense: Floats) -> "CSR":
        """Every entry of ``dense`` (rows, columns), without a copy."""
        n_rows, n_columns = dense.shape
        return cls(np.arange(n_rows + 1) * n_columns, np.zeros(0, np.uint8), dense.reshape(-1), n_columns)

    @property
    def n_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ids:
        """(n_rows,) how many entries each row has."""
        return np.diff(self.offsets)

    @property
    def is_full(self) -> bool:
        return not len(self.columns) and self.values is not None and len(self.values) > 0

    @property
    def density(self) -> float:
        return len(self.values) / max(1, self.n_rows * self.n_columns)

    def row_of_entry(self) -> Ids:
        """(nnz,) the row that each entry is in."""
        return np.repeat(np.arange(self.n_rows), self.lengths)

    def column_of_entry(self) -> NDArray:
        """(nnz,) the column that each entry is in."""
        if self.is_full:
            return np.tile(np.arange(self.n_columns, dtype=column_type(self.n_columns)), self.n_rows)
        return self.columns

    def entries_of(self, rows: Ids) -> tuple[Ids, Ids]:
        """The positions of the entries of ``rows`` (m,), row after row, and how many each row has, (m,)."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = lengths.cumsum()
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths), lengths

    def take(self, rows: Ids) -> "CSR":
        """A copy of ``rows`` (m,), in that order."""
        entries, lengths = self.entries_of(rows)
        factors = None if self.factors is None else self.factors[rows]
        return self._with(offsets_of(lengths), entries, factors)

    def between(self, first: int, stop: int) -> "CSR":
        """The rows from ``first`` to ``stop``, without a copy of their entries."""
        offsets = self.offsets[first : stop + 1]
        factors = None if self.factors is None else self.factors[first:stop]
        return self._with(offsets - offsets[0], slice(offsets[0], offsets[-1]), factors)

    def _with(self, offsets: Ids, entries: Any, factors: Floats | None) -> "CSR":
        columns = self.columns if self.is_full else self.columns[entries]
        values = None if self.values is None else self.values[entries]
        return CSR(offsets, columns, values, self.n_columns, factors)

    def dense(self, first: int = 0, stop: int | None = None) -> Floats:
        """(stop - first, n_columns) the rows from ``first`` to ``stop``, before their factors; no copy if full."""
        stop = self.n_rows if stop is None else stop
        start, end = self.offsets[first], self.offsets[stop]
        if self.is_full:
            return self.values[start:end].reshape(-1, self.n_columns)
        dense = np.zeros((stop - first) * self.n_columns, np.float32)
        begins = np.arange(stop - first) * self.n_columns
        places = np.repeat(begins, np.diff(self.offsets[first : stop + 1])) + self.columns[start:end]
        dense[places] = self.values[start:end]
        return dense.reshape(-1, self.n_columns)

    def to_scipy(self, dtype: Any = np.float32) -> Any:
        """A ``scipy.sparse.csr_array`` (n_rows, n_columns), before the factors."""
        # takes longer to load than most tables
        from scipy.sparse import csr_array

        index = np.int32 if len(self.values) < 2**31 else np.int64
        parts = self.values.astype(dtype), self.column_of_entry().astype(index), self.offsets.astype(index)
        return csr_array(parts, (self.n_rows, self.n_columns))


def checked_matrix(values: NDArray, columns: NDArray, row_offsets: NDArray, n_columns: int) -> CSR:
    """The matrix in these arrays, which are not copied where they are contiguous.

    Raises:
        DSLError: if they do not fit each other, a row's columns do not ascend, or a value is not finite.
    """
    # the loops are compiled for contiguous arrays
    values, columns, offsets = (np.require(array, None, "CA") for array in (values, columns, row_offsets))
    if values.ndim != 1 or values.dtype != np.float32:
        raise refusal("values", f"{values.dtype} of {values.ndim} dimensions", "float32 of one dimension")
    if columns.shape != values.shape or columns.dtype.kind not in "iu":
        raise refusal("columns", f"{columns.dtype}, {columns.shape}", f"integers, {values.shape}, as the values")
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or not len(offsets):
        raise refusal("row_offsets", f"{offsets.dtype}, {offsets.shape}", "integers, one more than there are rows")
    offsets = offsets.astype(np.int64, copy=False)
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise refusal("row_offsets", f"{offsets[0]}..{offsets[-1]}", f"ascending from 0 to {len(values)}")
    if len(columns) and (columns.min() < 0 or columns.max() >= n_columns):
        raise refusal("columns", f"{columns.min()}..{columns.max()}", f"from 0 to {n_columns - 1}")
    if not ascend(columns, offsets):
        raise DSLError("columns: must ascend in each row")
    _check_finite("values", values)
    if len(values) == (len(offsets) - 1) * n_columns:
        columns = columns[:0]
    return CSR(offsets, columns, values, n_columns)


def checked_dense(table: NDArray) -> CSR:
    """The full matrix of a dense ``table`` (n_rows, n_columns) float32.

    Raises:
        DSLError: if it is none, or a value is not finite.
    """
    table = np.ascontiguousarray(table)
    if table.ndim != 2 or table.dtype != np.float32:
        raise refusal("table", f"{table.dtype} of {table.ndim} dimensions", "float32 of two dimensions")
    _check_finite("table", table)
    return CSR.of_full(table)


def ascend(columns: NDArray, offsets: Ids) -> bool:
    """Whether ``columns`` (nnz,) ascend within each of the rows that begin at ``offsets`` (n_rows + 1,)."""
    rises = columns[1:] > columns[:-1]
    begins = offsets[1:-1]
    # from one row to the next they need not, and a row may be empty
    rises[begins[(begins > 0) & (begins < len(columns))] - 1] = True
    return bool(rises.all())


def offsets_of(lengths: Any) -> Ids:
    """(n + 1,) int64: where each of n rows of ``lengths`` (n,) begins, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def smallest(numbers: NDArray) -> NDArray:
    """``numbers`` in the smallest unsigned type that holds them, if they are integers and none is negative."""
    if numbers.dtype.kind not in "iu" or (numbers.size and numbers.min() < 0):
        return numbers
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def column_type(n_columns: int) -> np.dtype:
    """The smallest unsigned type that numbers ``n_columns``."""
    return np.min_scalar_type(max(n_columns - 1, 0))


def _check_finite(name: str, values: Floats) -> None:
    if not np.isfinite(values).all():
        raise DSLError(f"{name}: must be finite, here {int((~np.isfinite(values)).sum()):,} are not")
