"""The tables of a product as other libraries want them."""

import importlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.entries import Entries
from recbole_dsl.serving.tables import Table


class Vectors(NamedTuple):
    """A score is ``users[u] @ items[i]``, before a transformation that changes no order.

    Attributes:
        users: (n_users, n_columns) float32.
        items: (n_items, n_columns) float32.
        user_tokens: (n_users,) the token of each row.
        item_tokens: (n_items,).
    """

    users: Any
    items: Any
    user_tokens: NDArray[np.object_]
    item_tokens: NDArray[np.object_]


def as_numpy(table: Table) -> NDArray[np.float32]:
    """(rows, columns), dense."""
    return table.rows(0, table.n_rows).dense(table.n_columns)


def as_scipy(table: Table) -> Any:
    """(rows, columns), a ``scipy.sparse.csr_array``."""
    from scipy.sparse import csr_array

    entries, offsets = _with_signed_index(table)
    return csr_array((entries.values, entries.columns, offsets), (table.n_rows, table.n_columns))


def as_torch(table: Table) -> Any:
    """(rows, columns), a sparse CSR tensor, or a dense one where every entry is there."""
    # who asks for its tensors has it; nothing else here needs it
    torch = importlib.import_module("torch")
    if table.index == "full":
        return torch.from_numpy(np.array(as_numpy(table)))
    entries, offsets = _with_signed_index(table)
    parts = (torch.from_numpy(np.array(array)) for array in (offsets, entries.columns, entries.values))
    return torch.sparse_csr_tensor(*parts, size=(table.n_rows, table.n_columns), check_invariants=False)


def _with_signed_index(table: Table) -> tuple[Entries, NDArray[np.signedinteger]]:
    entries = table.rows(0, table.n_rows)
    kind = np.int32 if table.nnz < 2**31 else np.int64
    return Entries(entries.values, entries.columns.astype(kind), entries.offsets), entries.offsets.astype(kind)
