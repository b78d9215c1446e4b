"""A table of items' vectors by its entries, and the exact score of single items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal

# rows whose entries are worked on at once
_ROWS = 2**15


@dataclass(frozen=True)
class ItemTable:
    """Items' vectors, compressed by rows, or dense.

    Attributes:
        values: (nnz,) float32, row by row.
        columns: (nnz,) integers, ascending in each row; (0,) of a dense table, whose rows have all columns.
        row_offsets: (n_items + 1,) int64, where each row begins.
        n_columns: width.
        factors: (n_items,) float32, what each row is multiplied by; None for 1.
    """

    values: NDArray[np.float32]
    columns: NDArray
    row_offsets: NDArray[np.int64]
    n_columns: int
    factors: NDArray[np.float32] | None = None

    @property
    def n_items(self) -> int:
        return len(self.row_offsets) - 1

    @property
    def is_dense(self) -> bool:
        return not len(self.columns) and len(self.values) > 0

    @property
    def density(self) -> float:
        return len(self.values) / max(1, self.n_items * self.n_columns)

    def largest(self) -> float:
        """The largest magnitude of an entry."""
        if self.factors is None:
            return float(max(self.values.max(initial=0), -self.values.min(initial=0)))
        largest = 0.0
        for first in range(0, self.n_items, _ROWS):
            offsets = self.row_offsets[first : first + _ROWS + 1]
            magnitudes = np.abs(self.values[offsets[0] : offsets[-1]])
            scaled = magnitudes * np.repeat(self.factors[first : first + _ROWS], np.diff(offsets))
            largest = max(largest, float(scaled.max(initial=0)))
        return largest

    def first_row(self) -> "ItemTable":
        """A table of it alone, in arrays of the same types."""
        offsets = self.row_offsets[:2]
        entries = slice(0, offsets[-1])
        factors = None if self.factors is None else self.factors[:1]
        return ItemTable(self.values[entries], self.columns[entries], offsets, self.n_columns, factors)

    def take(self, items: NDArray[np.int64]) -> "ItemTable":
        """The rows ``items`` (m,), in that order."""
        entries, lengths = self.entries_of(items)
        columns = self.columns if self.is_dense else self.columns[entries]
        factors = None if self.factors is None else self.factors[items]
        return ItemTable(self.values[entries], columns, np.append(0, lengths.cumsum()), self.n_columns, factors)

    def entries_of(self, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the entries of ``items`` (m,) are, one item after the other, and how many each has, (m,)."""
        starts = self.row_offsets[items]
        lengths = self.row_offsets[items + 1] - starts
        ends = lengths.cumsum()
        return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths), lengths

    def dense_rows(self, first: int, stop: int) -> NDArray[np.float32]:
        """(stop - first, n_columns): the rows from ``first`` to ``stop``, without their factors.

        Those of a dense table are no copy.
        """
        start, end = self.row_offsets[first], self.row_offsets[stop]
        if self.is_dense:
            return self.values[start:end].reshape(-1, self.n_columns)
        dense = np.zeros((stop - first) * self.n_columns, np.float32)
        begins = np.arange(stop - first) * self.n_columns
        places = np.repeat(begins, np.diff(self.row_offsets[first : stop + 1])) + self.columns[start:end]
        dense[places] = self.values[start:end]
        return dense.reshape(-1, self.n_columns)


def sparse_table(values: NDArray, columns: NDArray, row_offsets: NDArray, n_columns: int) -> ItemTable:
    """The table that these arrays hold, none of which is changed.

    Raises:
        DSLError: if they do not fit each other, a row's columns do not ascend, or a value is not finite.
    """
    # of one layout, for which the loops are compiled
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
    if len(columns):
        if columns.min() < 0 or columns.max() >= n_columns:
            raise refusal("columns", f"{columns.min()}..{columns.max()}", f"from 0 to {n_columns - 1}")
        ascends = columns[1:] > columns[:-1]
        ascends[offsets[1:-1][(offsets[1:-1] > 0) & (offsets[1:-1] < len(columns))] - 1] = True
        if not ascends.all():
            raise DSLError("columns: must ascend in each row")
    _check_finite("values", values)
    if len(values) == (len(offsets) - 1) * n_columns:
        # has all columns, so need not say which
        columns = columns[:0]
    return ItemTable(values, columns, offsets, n_columns)


def dense_table(table: NDArray) -> ItemTable:
    """The same of a dense ``table`` (n_items, n_columns) float32."""
    table = np.ascontiguousarray(table)
    if table.ndim != 2 or table.dtype != np.float32:
        raise refusal("table", f"{table.dtype} of {table.ndim} dimensions", "float32 of two dimensions")
    _check_finite("table", table)
    n_items, n_columns = table.shape
    offsets = np.arange(n_items + 1, dtype=np.int64) * n_columns
    return ItemTable(table.reshape(-1), np.zeros(0, np.uint8), offsets, n_columns)


def exact_scores(
    table: ItemTable, queries: NDArray[np.float32], query_of: NDArray[np.int64], items: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The scores of pairs of a row of ``queries`` (n, n_columns) and an item, both (pairs,).

    A score is the sum of the products, each exact in float64, added up in float64 by ascending columns, times the
    item's factor, and rounded to float32. So it depends neither on the machine nor on what else is searched.
    """
    entries, lengths = table.entries_of(items)
    owners = np.repeat(np.arange(len(items)), lengths)
    columns = entries % table.n_columns if table.is_dense else table.columns[entries]
    products = queries[query_of[owners], columns].astype(np.float64) * table.values[entries]
    # adds one after the other, where sums and dot products of NumPy choose an order of their own
    sums = np.bincount(owners, products, len(items)) if len(items) else np.zeros(0)
    if table.factors is not None:
        sums = sums * table.factors[items]
    # no negative zeros
    return sums.astype(np.float32) + np.float32(0)


def _check_finite(name: str, values: NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        raise DSLError(f"{name}: must be finite, here {int((~np.isfinite(values)).sum()):,} are not")
