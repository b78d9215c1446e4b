"""The dense view of a large sparse weight, computed only if more than a product over all rows needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.lazy_scores import LazyScores
from recbole_dsl.sparse.lazy_tensor import LazyTensor
from recbole_dsl.sparse.softmax.sparse_input import is_mostly_zero, times_transposed
from recbole_dsl.sparse.view import become, not_to_be_swapped

# a layer with this many inputs or more checks whether they are mostly zero, as the items of a user are
_WIDE_FROM = 2**11


class LazyTable(LazyTensor):
    """The dense view of a sparse weight or of a slice of its rows, perhaps normalised, dropped out or transposed.

    The product of vectors with all rows is a `LazyScores`. ``isinstance`` takes it for an ``nn.Parameter``, as
    models check for one.

    Attributes:
        table: the entries, not transposed.
        dense: returns the dense tensor, not transposed; the same one at each call.
        look_up: returns the rows of some ids; None if there is no such function.
        is_transposed: whether this is the transpose.
    """

    table: CompressedRows
    dense: Callable[[], Tensor]
    look_up: Callable[[Tensor], Tensor] | None
    is_transposed: bool

    @classmethod
    def of(cls, table: CompressedRows, dense: Callable[[], Tensor], look_up=None) -> LazyTable:
        """The view of ``table``; ``dense`` computes the dense tensor, and is called once at most."""
        needs_gradient = torch.is_grad_enabled() and table.values.requires_grad
        attributes = {"table": table, "dense": cache(dense), "look_up": look_up, "is_transposed": False}
        lazy = cls(table.shape, table.values, needs_gradient, **attributes)
        not_to_be_swapped(lazy)
        return lazy

    def make(self) -> Tensor:
        return self.dense().t() if self.is_transposed else self.dense()

    def transposed(self) -> LazyTable:
        look_up = None if self.is_transposed else self.look_up
        attributes = {"table": self.table, "dense": self.dense, "look_up": look_up}
        shape = tuple(self.shape)[::-1]
        transposed = not self.is_transposed
        return LazyTable(shape, self.table.values, self.requires_grad, **attributes, is_transposed=transposed)

    def changed(self, values: Tensor) -> LazyTable:
        """The view with other ``values`` (nnz,) at the same entries."""
        table = replace(self.table, values=values)
        return LazyTable.of(table, table.dense)

    @property
    def _is_param(self) -> bool:
        return True


def _transpose(x: LazyTable, *dims: int, **named: int) -> Any:
    dims = (*dims, *named.values())
    return x.transposed() if not dims or {dim % 2 for dim in dims} == {0, 1} else NotImplemented


def _permute(x: LazyTable, *dims: Any) -> Any:
    dims = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return _transpose(x, *dims) if [dim % 2 for dim in dims] == [1, 0] else NotImplemented


def _item(x: Any, index: Any) -> Any:
    if not isinstance(x, LazyTable) or x.is_transposed:
        return NotImplemented
    if isinstance(index, tuple) and len(index) == 2 and index[1] == slice(None):
        index = index[0]
    if isinstance(index, slice):
        try:
            start, stop, step = index.indices(x.shape[0])
        except TypeError:
            return NotImplemented
        if step != 1 or start >= stop:
            return NotImplemented
        if (start, stop) == (0, x.shape[0]):
            return x
        dense = x.dense
        return LazyTable.of(x.table.narrow(start, stop), lambda: dense()[start:stop])
    return _rows(x, index)


def _rows(x: LazyTable, ids: Any) -> Any:
    is_ids = (
        isinstance(ids, Tensor) and not isinstance(ids, LazyTensor) and ids.dtype in (torch.int64, torch.int32)
    )
    if not is_ids or x.look_up is None or not ids.numel() or int(ids.min()) < 0:
        return NotImplemented
    return x.look_up(ids)


def _index_select(x: Any, dim: int, index: Tensor) -> Any:
    return _embedding(index, x) if dim in (0, -2) else NotImplemented


def _embedding(
    ids: Any, x: Any, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False
):
    is_plain = padding_idx is None and max_norm is None and not scale_grad_by_freq and not sparse
    return _rows(x, ids) if is_plain and isinstance(x, LazyTable) and not x.is_transposed else NotImplemented


def _product(x: Any, y: Any) -> Any:
    return _scores(x, y, None) if isinstance(y, LazyTable) and y.is_transposed else NotImplemented


def _linear(x: Any, y: Any, bias: Any = None) -> Any:
    x = x.made() if isinstance(x, LazyScores) else x
    if (
        not isinstance(y, LazyTable)
        or y.is_transposed
        or isinstance(x, LazyTensor)
        or isinstance(bias, LazyTensor)
    ):
        return NotImplemented
    x, bias = _as_in_autocast(x, y), None if bias is None else _as_in_autocast(bias, y)
    if y.shape[1] >= _WIDE_FROM and x.dtype == y.dtype and is_mostly_zero(x):
        out = times_transposed(x, y.table)
        return out if bias is None else out + bias
    return _scores(x, y, bias)


def _scores(x: Any, y: LazyTable, bias: Tensor | None) -> Any:
    # the output of one wide layer may be the input of another
    x = x.made() if isinstance(x, LazyScores) else x
    if not isinstance(x, Tensor) or isinstance(x, LazyTensor) or x.dim() < 2:
        return NotImplemented
    x = _as_in_autocast(x, y)
    table = y.table
    if (x.dtype, x.device, x.shape[-1]) != (y.dtype, y.device, table.n_columns):
        return NotImplemented
    if bias is not None and (bias.dtype, tuple(bias.shape)) != (y.dtype, (table.n_rows,)):
        return NotImplemented
    return LazyScores.of(x, table, y.dense, bias)


def _as_in_autocast(x: Tensor, y: LazyTable) -> Tensor:
    """``x`` in the dtype of ``y`` within autocast, where a product takes operands of different dtypes."""
    return x.to(y.dtype) if torch.is_autocast_enabled(x.device.type) and x.is_floating_point() else x


def _detach(x: LazyTable) -> Any:
    """Detach ``x``, which becomes dense in place: ``nn.Parameter`` expects a result of the same type."""
    become(x, x.made())
    return x.detach()


def _norm(x: LazyTable, p: Any = "fro", dim: Any = None, keepdim: Any = False, out: Any = None, dtype: Any = None):
    # the derivatives of these norms are zero at entries that are zero
    if p not in ("fro", 1, 2) or any(choice not in (None, False) for choice in (dim, keepdim, out, dtype)):
        return NotImplemented
    return torch.norm(x.table.values, p)


def _normalize(x: LazyTable, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    if not _is_free(x) or p != 2 or dim not in (1, -1) or out is not None:
        return NotImplemented
    values, rows = x.table.values, x.table.rows
    squares = values.new_zeros(x.table.n_rows).index_add(0, rows, values.square())
    lengths = squares.clamp_min(eps**2).sqrt()
    return x.changed(values / lengths[rows])


def _dropout(x: LazyTable, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if inplace or not _is_free(x):
        return NotImplemented
    return x.changed(F.dropout(x.table.values, p, True)) if training and p else x


def _relu(x: LazyTable, inplace: bool = False) -> Any:
    return NotImplemented if inplace or not _is_free(x) else x.changed(F.relu(x.table.values))


def _is_free(x: LazyTable) -> bool:
    """Whether it is enough to change the alive entries, as no gradient of the others is collected."""
    return not x.is_transposed and x.table.sink is None


LazyTable.rules = {
    **dict.fromkeys((Tensor.t, torch.t, Tensor.T.__get__, Tensor.mT.__get__), _transpose),
    **dict.fromkeys((Tensor.transpose, torch.transpose, Tensor.swapaxes, torch.swapaxes), _transpose),
    **dict.fromkeys((Tensor.permute, torch.permute), _permute),
    Tensor.__getitem__: _item,
    **dict.fromkeys((Tensor.index_select, torch.index_select), _index_select),
    F.embedding: _embedding,
    **dict.fromkeys((Tensor.matmul, torch.matmul, Tensor.__matmul__, Tensor.mm, torch.mm), _product),
    Tensor.__rmatmul__: lambda y, x: _product(x, y),
    F.linear: _linear,
    **dict.fromkeys((Tensor.detach, torch.detach), _detach),
    **dict.fromkeys((Tensor.norm, torch.norm), _norm),
    F.normalize: _normalize,
    F.dropout: _dropout,
    **dict.fromkeys((Tensor.relu, torch.relu, F.relu), _relu),
}
