"""Folding in: the vector of a row that was not trained, by its interactions, with least squares."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.csr import CSR, Floats, Ids
from recbole_dsl.serving.packed_table import PackedTable

# the weight of a folded-in vector's squared length, relative to the mean squared norm of the other side's columns;
# the best on the validation data of ml-100k
_RIDGE = 0.6
# how much longer SciPy takes for the product of two entries than a dense product for that of two cells
_PER_PAIR = 200


def prior_of(table: PackedTable, n_free: int) -> NDArray[np.float64]:
    """(n_columns, n_columns) the products of the columns of ``table``, and a ridge by the first ``n_free``."""
    products = gram(table)
    ridge = _RIDGE * np.trace(products[:n_free, :n_free]) / n_free
    # so that a table of zeros has a solution too
    return products + max(ridge, np.finfo(np.float32).tiny) * np.eye(len(products))


def fold_in(
    dense_rows: Callable[[Ids], Floats], prior: NDArray[np.float64], lists: CSR, bias: float | None = None
) -> Floats:
    """(n, n_columns) the vectors of ``lists`` of rows of a table.

    Each is the least squares solution for products of 1 with the rows of its list and of 0 with all rows, as in
    alternating least squares (`implicit`'s ``recalculate_user``).

    Args:
        dense_rows: gives the rows of ids.
        prior: what `prior_of` gives for the table.
        bias: the last number of every vector, if it is given and not free.
    """
    n_columns = len(prior)
    n_free = n_columns - (bias is not None)
    out = np.empty((lists.n_rows, n_columns), np.float32)
    distinct, places = np.unique(lists.columns, return_inverse=True)
    rows = dense_rows(distinct)
    for number in range(lists.n_rows):
        own = rows[places[lists.offsets[number] : lists.offsets[number + 1]]].astype(np.float64)
        free = own[:, :n_free]
        wanted = np.ones(len(own)) if bias is None else 1 - bias * own[:, -1]
        out[number, :n_free] = np.linalg.solve(prior[:n_free, :n_free] + free.T @ free, free.T @ wanted)
        if bias is not None:
            out[number, -1] = bias
    return out


def gram(table: PackedTable) -> NDArray[np.float64]:
    """(n_columns, n_columns) the products of a table's columns, by its entries if they are few."""
    n_columns = table.n_columns
    if _PER_PAIR * (np.diff(table.offsets) ** 2).sum() < table.n_rows * n_columns**2:
        matrix = table.all_rows().to_scipy(np.float64)
        return (matrix.T @ matrix).toarray()
    products = np.zeros((n_columns, n_columns))
    for start, stop in table.blocks(2**18):
        block = table.rows(start, stop).dense().astype(np.float64)
        products += block.T @ block
    return products
