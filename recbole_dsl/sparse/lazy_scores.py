"""The scores of all rows of a sparse table, computed only if more than a softmax loss needs them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.lazy_tensor import LazyTensor
from recbole_dsl.sparse.softmax.cross_entropy import Targets, cross_entropy, soft_cross_entropy


class LazyScores(LazyTensor):
    """``vectors @ table.T + bias``, of shape (..., rows).

    Attributes:
        vectors: (..., columns).
        table: the rows.
        dense: returns them as a dense tensor.
        bias: (rows,) or None.
        root: the scores that this is a reshaped view of, or None.
    """

    vectors: Tensor
    table: CompressedRows
    dense: Callable[[], Tensor]
    bias: Tensor | None
    root: LazyScores | None

    @classmethod
    def of(
        cls,
        vectors: Tensor,
        table: CompressedRows,
        dense: Callable[[], Tensor],
        bias: Tensor | None = None,
        root=None,
    ) -> LazyScores:
        operands = (vectors, table.values, bias)
        needs_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
        attributes = {"vectors": vectors, "table": table, "dense": dense, "bias": bias, "root": root}
        return cls((*vectors.shape[:-1], table.n_rows), table.values, needs_gradient, **attributes)

    @property
    def is_made(self) -> bool:
        return super().is_made if self.root is None else self.root.is_made

    def make(self) -> Tensor:
        if self.root is not None:
            # all shapes share memory: what is written into one is read in the others
            return self.root.made().view(self.shape)
        return F.linear(self.vectors, self.dense(), self.bias)

    def with_vectors(self, vectors: Tensor, bias: Tensor | None, root: LazyScores | None = None) -> LazyScores:
        return LazyScores.of(vectors, self.table, self.dense, bias, root)


class LazyLogSoftmax(LazyTensor):
    """The log-softmax of ``scores`` over all rows."""

    scores: LazyScores

    def make(self) -> Tensor:
        return F.log_softmax(self.scores.made(), -1)


class LazyShares(LazyTensor):
    """A log-softmax (n, rows) times ``shares`` (n, rows), the soft targets of a cross-entropy."""

    log_softmax: LazyLogSoftmax
    shares: Tensor

    def make(self) -> Tensor:
        return self.log_softmax.made() * self.shares


def _view(x: Any, *shape: Any) -> Any:
    if x.is_made or not all(isinstance(size, (int, tuple, list)) for size in shape):
        return NotImplemented
    new = torch.empty(x.shape, device="meta").view(*shape).shape
    if not len(new) or new[-1] != x.shape[-1]:
        return NotImplemented
    vectors = x.vectors.reshape(*new[:-1], x.vectors.shape[-1])
    return x.with_vectors(vectors, x.bias, x.root or x)


def _add(x: Any, y: Any) -> Any:
    if not isinstance(x, LazyScores):
        x, y = y, x
    if not isinstance(x, LazyScores) or x.is_made or not isinstance(y, Tensor) or isinstance(y, LazyTensor):
        return NotImplemented
    n = x.shape[-1]
    if y.dtype != x.dtype or y.shape not in ((n,), (1, n)):
        return NotImplemented
    y = y.reshape(n)
    return x.with_vectors(x.vectors, y if x.bias is None else x.bias + y)


def _scale(x: Any, y: Any, by: Callable) -> Any:
    is_number = (isinstance(y, Real) and not isinstance(y, bool)) or (
        isinstance(y, Tensor) and not isinstance(y, LazyTensor) and y.dim() == 0 and y.is_floating_point()
    )
    if not isinstance(x, LazyScores) or x.is_made or not is_number:
        return NotImplemented
    return x.with_vectors(by(x.vectors, y), None if x.bias is None else by(x.bias, y))


def _multiply(x: Any, y: Any) -> Any:
    return _scale(x, y, torch.mul) if isinstance(x, LazyScores) else _scale(y, x, torch.mul)


def _cross_entropy(
    x: Any,
    target: Any,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    scores = x.scores if isinstance(x, LazyLogSoftmax) else x
    if not isinstance(scores, LazyScores) or scores.is_made or scores.dim() != 2:
        return NotImplemented
    if size_average is not None or reduce is not None or reduction not in ("mean", "sum", "none"):
        return NotImplemented
    if isinstance(target, LazyTensor) or target.dtype != torch.int64 or target.shape != scores.shape[:1]:
        return NotImplemented
    if weight is not None and (isinstance(weight, LazyTensor) or weight.requires_grad or bool((weight < 0).any())):
        return NotImplemented
    options = {"weight": weight, "ignore_index": ignore_index, "reduction": reduction}
    operands = scores.vectors, scores.table, scores.bias
    return cross_entropy(*operands, target, **options, label_smoothing=label_smoothing)


def _nll_loss(
    x: Any, target: Any, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"
):
    if not isinstance(x, LazyLogSoftmax):
        return NotImplemented
    return _cross_entropy(x, target, weight, size_average, ignore_index, reduce, reduction)


def _log_softmax(x: Any, dim: Any = None, *more: Any, dtype: Any = None, **_: Any) -> Any:
    if not isinstance(x, LazyScores) or x.is_made or dtype is not None or more[1:] or dim is None:
        return NotImplemented
    if dim % x.dim() != x.dim() - 1:
        return NotImplemented
    return LazyLogSoftmax(x.shape, x.vectors, x.requires_grad, scores=x)


def _give_shares(x: Any, y: Any) -> Any:
    if not isinstance(x, LazyLogSoftmax):
        x, y = y, x
    if not isinstance(x, LazyLogSoftmax) or isinstance(y, LazyTensor) or not isinstance(y, Tensor):
        return NotImplemented
    if y.requires_grad or x.dim() != 2 or (y.shape, y.dtype) != (x.shape, x.dtype) or x.scores.is_made:
        return NotImplemented
    return LazyShares(x.shape, y, x.requires_grad, log_softmax=x, shares=y)


def _sum(x: LazyShares, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    scores = x.log_softmax.scores
    if dim not in (1, -1, (1,), (-1,), [1], [-1]) or keepdim or dtype is not None or scores.is_made:
        return NotImplemented
    samples, rows = x.shares.nonzero().unbind(1)
    shares = x.shares[samples, rows]
    if len(shares) and float(shares.min()) < 0:
        return NotImplemented
    targets = Targets.of(len(x.shares), samples, rows, shares)
    return -soft_cross_entropy(scores.vectors, scores.table, scores.bias, targets)


LazyScores.rules = {
    **dict.fromkeys((Tensor.view, Tensor.reshape, torch.reshape), _view),
    **dict.fromkeys((Tensor.add, torch.add, Tensor.__add__, Tensor.__radd__), _add),
    **dict.fromkeys((Tensor.mul, torch.mul, Tensor.__mul__, Tensor.__rmul__), _multiply),
    **dict.fromkeys((Tensor.div, torch.div, Tensor.__truediv__), lambda x, y: _scale(x, y, torch.div)),
    F.cross_entropy: _cross_entropy,
    **dict.fromkeys((F.log_softmax, torch.log_softmax, Tensor.log_softmax), _log_softmax),
}
LazyLogSoftmax.rules = {
    F.nll_loss: _nll_loss,
    **dict.fromkeys((Tensor.mul, torch.mul, Tensor.__mul__, Tensor.__rmul__), _give_shares),
}
LazyShares.rules = {**dict.fromkeys((Tensor.sum, torch.sum), _sum)}
