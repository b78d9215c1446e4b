"""The order of rows by a column, many times as fast as NumPy's stable ``argsort``."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.topology.selection import sortable


def order_by(columns: Sequence[Tensor], ascending: Sequence[bool]) -> Tensor | None:
    """The order in which rows are sorted by ``columns``, by the first one first: (rows,) int64; None if they are.

    Equal rows stay in order by an ascending column, and are turned round by a descending one, as in RecBole.

    Args:
        columns: (rows,) each.
    """
    order = None
    for column, is_ascending in zip(reversed(columns), reversed(ascending), strict=True):
        found = _order(column if order is None else column.index_select(0, order))
        if not is_ascending:
            found = (torch.arange(len(column)) if found is None else found).flip(0)
        if found is not None:
            order = found if order is None else order.index_select(0, found)
    return order


def _order(keys: Tensor) -> Tensor | None:
    """(n,) the stable ascending order of ``keys`` (n,), not a number last; None if they are in it."""
    if bool((keys[1:] >= keys[:-1]).all()):
        return None
    if keys.is_floating_point():
        if bool(keys.isnan().any()):
            return torch.from_numpy(np.argsort(keys.numpy(), kind="stable"))
        # PyTorch has a radix sort for integers alone; adding 0.0 makes -0.0 the same key as 0.0
        keys = sortable(keys + 0.0)
    return torch.argsort(keys, stable=True)
