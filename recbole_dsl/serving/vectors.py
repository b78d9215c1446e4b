"""The tables of a product as other libraries take them."""

import importlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.csr import CSR


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


def as_torch(table: CSR) -> Any:
    """(rows, columns) a sparse CSR tensor, or a dense one of a full table."""
    # serving does without PyTorch
    torch = importlib.import_module("torch")
    if table.is_full:
        return torch.from_numpy(np.array(table.dense()))
    matrix = table.to_scipy()
    parts = (torch.from_numpy(np.array(array)) for array in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)
