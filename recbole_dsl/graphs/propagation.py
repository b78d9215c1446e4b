"""Faster products with the constant sparse matrices by which graph models propagate embeddings."""

from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dsl.private_torch import DisableTorchFunctionSubclass, entries_of, make_subclass
from recbole_dsl.sparse.compressed_rows import CompressedRows


def compress_graphs(model: nn.Module) -> list[str]:
    """Replace the sparse matrices of ``model``, in place, by ones with a faster product and backward pass.

    These are the untrained float32 COO matrices that modules of ``model`` hold as attributes, buffers, or in a
    list, tuple or dict. The model computes the same as before. A module with such a matrix looks for new ones at
    each ``forward``, for models that rebuild their graph while they train.

    Returns:
        The names of what was replaced; none if all had been before.
    """
    replaced: dict[Tensor, PropagationMatrix] = {}
    names = []
    for prefix, module in list(model.named_modules()) if make_subclass is not None else ():
        own = _compress_attributes(module, replaced)
        if own and not isinstance(module, _HasGraphs):
            module.__class__ = _with_graphs(type(module))
        names += [f"{prefix}.{name}" if prefix else name for name in own]
    return names


def has_graphs(model: nn.Module) -> bool:
    """Whether a module of ``model`` holds a constant sparse matrix, of any type and on any device."""
    return any(_holds_matrix(members) for m in model.modules() for members in (m._buffers, vars(m)))


class PropagationMatrix(Tensor):
    """A constant sparse COO matrix (n, m), float32, whose product with a dense one (m, k) is faster.

    ``torch.sparse.mm``, ``torch.mm``, ``torch.matmul`` and ``@`` with such a matrix on the left read compressed
    rows, which are made at the first product; those of the transpose, for the gradient, at the first backward
    pass. In automatic mixed precision, for which PyTorch has no such product, it is one in float32. Everything
    else, other operand types included, is done by PyTorch with the COO matrix, and gives a plain tensor.
    """

    _compressed: tuple[int, CompressedRows] | None = None

    def __new__(cls, matrix: Tensor) -> "PropagationMatrix":
        return make_subclass(cls, matrix.detach())

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with DisableTorchFunctionSubclass():
            if func in _PRODUCTS and not kwargs and len(args) == 2 and _is_supported(*args):
                matrix, dense = args
                with torch.autocast(dense.device.type, enabled=False):
                    return _Product.apply(dense.float(), matrix._rows())
            return func(*args, **(kwargs or {}))

    def __deepcopy__(self, memo):
        memo[id(self)] = copied = PropagationMatrix(self.detach().clone())
        return copied

    def __reduce_ex__(self, protocol):
        # files hold the plain matrix, to be readable without this module
        return self.detach().__reduce_ex__(protocol)

    def _rows(self) -> CompressedRows:
        # loading a state dict changes a buffer in place
        if self._compressed is None or self._compressed[0] != self._version:
            (rows, columns), values = entries_of(self)
            self._compressed = self._version, CompressedRows.from_coo(rows, columns, values, self.shape)
        return self._compressed[1]


_HALVES = (torch.float16, torch.bfloat16)
_PRODUCTS = {torch.sparse.mm, torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__}


def _is_supported(matrix: Any, dense: Any) -> bool:
    return (
        isinstance(matrix, PropagationMatrix)
        and isinstance(dense, Tensor)
        and (dense.layout, dense.device) == (torch.strided, matrix.device)
        and (
            dense.dtype == torch.float32
            or (dense.dtype in _HALVES and torch.is_autocast_enabled(dense.device.type))
        )
        and dense.dim() == 2
        and dense.shape[0] == matrix.shape[1]
        and dense.numel() > 0
        and not matrix.requires_grad
    )


class _Product(torch.autograd.Function):
    """Compressed rows times a dense matrix; only the dense one gets a gradient."""

    @staticmethod
    def forward(ctx, dense: Tensor, rows: CompressedRows) -> Tensor:
        ctx.rows = rows
        return rows.times(dense)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(gradient, ctx.rows.transposed), None


class _HasGraphs:
    """Mixed into the class of every module with propagation matrices."""

    def forward(self, *args, **kwargs):
        # SGL appends to lists that are attributes, which __setattr__ would not see
        _compress_attributes(self, {})
        return super().forward(*args, **kwargs)


@cache
def _with_graphs(base: type) -> type:
    members = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base)(base.__name__, (_HasGraphs, base), members)


def _compress_attributes(module: nn.Module, replaced: dict[Tensor, PropagationMatrix]) -> list[str]:
    return _compress_members(module._buffers, replaced) + _compress_members(vars(module), replaced)


def _compress_members(
    members: MutableMapping[Any, Any] | MutableSequence[Any], replaced: dict[Tensor, PropagationMatrix]
) -> list[str]:
    """Replace the matrices in ``members``; one that is there twice is replaced by the same one."""
    names = []
    for key, value in list(_items(members)):
        if _is_graph(value):
            members[key] = replaced.setdefault(value, PropagationMatrix(value))
            names.append(str(key))
        elif isinstance(value, (list, dict)) and _starts_with_tensor(value):
            names += [f"{key}.{name}" for name in _compress_members(value, replaced)]
        elif type(value) is tuple and _starts_with_tensor(value):
            entries = list(value)
            own = _compress_members(entries, replaced)
            members[key] = tuple(entries) if own else value
            names += [f"{key}.{name}" for name in own]
    return names


def _holds_matrix(members: Mapping | Sequence) -> bool:
    return any(
        value.layout is not torch.strided and not value.requires_grad
        if isinstance(value, Tensor)
        else isinstance(value, (list, tuple, dict)) and _starts_with_tensor(value) and _holds_matrix(value)
        for _, value in _items(members)
    )


def _items(members):
    return members.items() if isinstance(members, Mapping) else enumerate(members)


def _starts_with_tensor(values: list | tuple | dict) -> bool:
    # do not search long lists of something else at each step
    return isinstance(next(iter(values.values() if isinstance(values, dict) else values), None), Tensor)


def _is_graph(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and not isinstance(value, (PropagationMatrix, nn.Parameter))
        and value.layout is torch.sparse_coo
        and (value.sparse_dim(), value.dense_dim()) == (2, 0)
        and value.dtype == torch.float32
        and not value.requires_grad
    )
