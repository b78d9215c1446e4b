"""Reading a sparse weight as dense rows or as a whole, in the way that costs least."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.private_torch import entries_of
from recbole_dsl.sparse.compressed_rows import CompressedRows, GradientSink

# look-ups, as a share of the rows, from which on they copy rows of a dense matrix instead of making each anew
_COPY_FROM_SHARE = 0.5
# entries of a dense matrix that is made for a few of its rows, where it is kept for many look-ups
_KEPT_FOR_ROWS_UP_TO = 2**24
# alive entries from which on the gradients of look-ups are added up to one dense tensor
_ONE_GRADIENT_FROM = 2**20


class Pending(Protocol):
    """What an optimizer has still to do to the values of a weight, which are stored as it needs them."""

    def current(self, slots: Tensor) -> Tensor:
        """What the values at ``slots`` (n,) would be: (n,)."""

    def has_taken(self, gradient: Tensor) -> bool:
        """Whether a step has been taken with ``gradient``."""

    def settle(self) -> None:
        """Do it, in place."""

    def end(self) -> None:
        """Do it, and leave no more to be done."""


class Reader:
    """Reads one sparse weight, and tells who collects its gradients what was read.

    Attributes:
        sparse_gradient: whether `rows` gives the values a gradient in sparse COO layout, for optimizers that touch
            only what has one.
        pending: what an optimizer has still to do to the values; `rows` reads them as they would be then.
        gradient_sink: if set, called in the backward pass as ``gradient_sink(ids, gradient)`` with the gradient of
            the dense rows that were read, alive or not: ``ids`` (n,) and ``gradient`` (n, columns), or None and
            (rows, columns) after `dense`.
        kept: the dense tensor, while it `keeps_dense` and once it was asked for.
    """

    def __init__(self, shape: torch.Size, padding_row: int | None, sparse_gradient: bool = False):
        self._shape, self._padding_row = shape, padding_row
        self.sparse_gradient = sparse_gradient
        self.pending: Pending | None = None
        self.gradient_sink: GradientSink | None = None
        self.keeps_dense, self.kept = False, None
        self._hooked: Tensor | None = None

    def rows(self, matrix: CompressedRows, ids: Tensor) -> Tensor:
        """The dense rows ``ids`` (any shape, integer): ``(*ids.shape, *shape[1:])``, differentiable."""
        if self.kept is not None and not torch.is_grad_enabled():
            return self.kept[ids] if self.kept.dim() > 2 else F.embedding(ids, self.kept)
        out = self._flat_rows(matrix, ids.reshape(-1).long())
        return out.view(*ids.shape, *self._shape[1:])

    def _flat_rows(self, matrix: CompressedRows, ids: Tensor) -> Tensor:
        n_rows, nnz = matrix.n_rows, matrix.columns.numel()
        numel = n_rows * matrix.n_columns
        if nnz == numel:
            whole = matrix.values.view(matrix.shape)
            self._watch(whole, None)
            return F.embedding(ids, whole, padding_idx=self._padding_row)
        is_copied = ids.numel() >= _COPY_FROM_SHARE * n_rows or (
            self.keeps_dense and numel <= _KEPT_FOR_ROWS_UP_TO
        )
        if is_copied and not self.sparse_gradient:
            return F.embedding(ids, self.dense(matrix).view(matrix.shape))
        if self.sparse_gradient or (self.pending is not None and torch.is_grad_enabled()):
            distinct, which = ids.unique(return_inverse=True)
            return F.embedding(which, self._new_rows(matrix, distinct))
        return self._new_rows(matrix, ids)

    def _new_rows(self, matrix: CompressedRows, ids: Tensor) -> Tensor:
        """The dense rows ``ids`` (n,): (n, columns); for a sparse gradient they must be distinct and ascending."""
        if not (ids.is_cpu or self.sparse_gradient):
            out = matrix.padded_rows(ids)
        else:
            which, slots, columns = matrix.entries_of(ids)
            if self.pending is not None:
                alive = SparselyRead.apply(matrix.values, slots, self.pending.current(slots))
            elif self.sparse_gradient or self._adds_gradients_up(matrix):
                alive = SparselyRead.apply(matrix.values, slots, None)
            else:
                alive = matrix.values.index_select(0, slots)
            out = matrix.values.new_zeros(len(ids) * matrix.n_columns)
            out = out.index_copy_(0, which * matrix.n_columns + columns, alive).view(len(ids), matrix.n_columns)
        self._watch(out, ids)
        return out

    def dense(self, matrix: CompressedRows) -> Tensor:
        """The whole weight as a new tensor of its shape, differentiable, unless that is kept."""
        if self.kept is not None and not torch.is_grad_enabled():
            return self.kept
        out = spread(matrix, matrix.values)
        self._watch(out, None)
        out = out.view(self._shape)
        if self.keeps_dense and not torch.is_grad_enabled():
            self.kept = out
            self.kept._is_param = True
        return out

    @contextmanager
    def dense_kept(self) -> Iterator[None]:
        """Within it, where no gradient is asked for, `dense` makes its tensor once; the weight must not change."""
        self.keeps_dense = True
        try:
            yield
        finally:
            self.keeps_dense, self.kept = False, None

    def _watch(self, out: Tensor, ids: Tensor | None) -> None:
        sink = self.gradient_sink
        if sink is not None and out.requires_grad:
            out.register_hook(lambda gradient: sink(ids, gradient))

    def _adds_gradients_up(self, matrix: CompressedRows) -> bool:
        values = matrix.values
        if matrix.columns.numel() < _ONE_GRADIENT_FROM or not values.requires_grad:
            return False
        if self._hooked is not values:
            values.register_post_accumulate_grad_hook(self._make_gradient_dense)
            self._hooked = values
        return True

    def _make_gradient_dense(self, values: Tensor) -> None:
        if not self.sparse_gradient and self.pending is None:
            values.grad = dense_gradient(values.grad)


def spread(matrix: CompressedRows, entries: Tensor) -> Tensor:
    """A new dense tensor (rows, columns) with ``entries`` (nnz,) where those of ``matrix`` are."""
    if len(matrix.columns) == matrix.n_rows * matrix.n_columns:
        return entries.clone().view(matrix.shape)
    out = entries.new_zeros(matrix.n_rows * matrix.n_columns)
    return out.index_copy_(0, matrix.positions(), entries).view(matrix.shape)


def dense_gradient(gradient: Tensor) -> Tensor:
    """A one-dimensional gradient as a dense tensor, whatever its layout."""
    if not gradient.is_sparse:
        return gradient
    (index,), values = entries_of(gradient)
    return values.new_zeros(gradient.shape).index_add_(0, index, values)


class SparselyRead(torch.autograd.Function):
    """``values[slots]`` for distinct, ascending ``slots`` (n,), or ``read`` (n,), which stands for it.

    The gradient of ``values`` is a COO tensor of n entries, and costs what they cost.
    """

    @staticmethod
    def forward(ctx, values: Tensor, slots: Tensor, read: Tensor | None) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.shape = values.shape
        return values.index_select(0, slots) if read is None else read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        (slots,) = ctx.saved_tensors
        # where the values are not contiguous PyTorch adds two such tensors by joining them, else it merges them
        # entry by entry, which takes longer than the rest of the backward pass
        strided = gradient.new_empty(2 * len(gradient))[::2].copy_(gradient)
        return torch.sparse_coo_tensor(slots.unsqueeze(0), strided, ctx.shape, check_invariants=False), None, None
