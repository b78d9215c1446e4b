"""The entries of a table before they are written in few bits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.lists import offsets_of


@dataclass(frozen=True)
class Entries:
    """The entries of some rows.

    Attributes:
        values: (nnz,) float32.
        columns: (nnz,) unsigned, ascending within each row.
        offsets: (rows + 1,) int64.
    """

    values: NDArray[np.float32]
    columns: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, dense: NDArray[np.float32]) -> "Entries":
        """Those of ``dense`` (rows, columns) that are not 0."""
        rows, columns = np.nonzero(dense)
        counts = np.bincount(rows, minlength=len(dense))
        return cls(dense[rows, columns], columns.astype(column_type(dense.shape[1])), offsets_of(counts))

    @property
    def n_rows(self) -> int:
        return len(self.offsets) - 1

    def dense(self, n_columns: int) -> NDArray[np.float32]:
        """(rows, n_columns)."""
        if len(self.values) == self.n_rows * n_columns:
            return self.values.reshape(self.n_rows, n_columns)
        out = np.zeros((self.n_rows, n_columns), np.float32)
        out[self.rows(), self.columns] = self.values
        return out

    def rows(self) -> NDArray[np.int64]:
        """(nnz,) the row of each entry."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.offsets))

    def times_columns(self, factors: NDArray[np.float32]) -> "Entries":
        """Each column multiplied by one of ``factors`` (columns,)."""
        return Entries(self.values * factors[self.columns], self.columns, self.offsets)

    def times_rows(self, factors: NDArray[np.float32]) -> "Entries":
        """Each row multiplied by one of ``factors`` (rows,)."""
        return Entries(self.values * factors[self.rows()], self.columns, self.offsets)

    def with_column(self, column: NDArray[np.float32], n_columns: int) -> "Entries":
        """With ``column`` (rows,) after the ``n_columns`` that there are."""
        ends = self.offsets[1:]
        columns = np.insert(self.columns.astype(column_type(n_columns + 1)), ends, n_columns)
        return Entries(np.insert(self.values, ends, column), columns, self.offsets + np.arange(len(self.offsets)))

    def largest(self, n: int) -> "Entries":
        """The ``n`` of the largest magnitude, of those that tie the first."""
        if n >= len(self.values):
            return self
        order = np.argsort(-np.abs(self.values), kind="stable")[:n]
        kept = np.zeros(len(self.values), bool)
        kept[order] = True
        counts = np.bincount(self.rows()[kept], minlength=self.n_rows)
        return Entries(self.values[kept], self.columns[kept], offsets_of(counts))


def column_type(n_columns: int) -> type:
    """The smallest unsigned type that numbers ``n_columns``."""
    return np.uint8 if n_columns <= 2**8 else np.uint16 if n_columns <= 2**16 else np.uint32
