"""Floating-point operations of a forward pass, counted on its tensors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from recbole_dsl.measure.untouched import random_state_kept, throwaway_copy
from recbole_dsl.private_torch import DispatchMode, TorchDispatchMode
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.weight import SparseWeight

aten = torch.ops.aten


def forward_flops(model: nn.Module, forward: Callable[[nn.Module], object]) -> tuple[int, int]:
    """Operations of ``forward(model)`` as a dense model and with the sparse weights of ``model``.

    Counts additions and multiplications of non-zero operands in matrix products (of sparse matrices too),
    convolutions, element-wise products, sums and additions: the work of a kernel that skips zeros. For the dense
    figure every entry of the sparse weights counts as alive.

    ``forward`` gets a new copy of ``model`` in evaluation mode for each figure, so that what a model computes from
    made-up values, and keeps, is lost with the copy. Random states do not change.

    Returns:
        (dense, sparse)

    Raises:
        NotToBeCopied: if there is no copy that has nothing in common with ``model``.
    """
    if TorchDispatchMode is None:
        raise NotImplementedError("this release of PyTorch does not show what it computes")
    counts = []
    for filled in (True, False):
        copied = throwaway_copy(model).eval()
        counter = _Counter()
        with torch.no_grad(), random_state_kept(), _filled(copied, filled), counter:
            # which of the made-up values a ReLU lets through must not depend on what was drawn before
            torch.manual_seed(0)
            forward(copied)
        counts.append(int(counter.total))
    return counts[0], counts[1]


def flops_of_one(model: nn.Module, forward: Callable[[nn.Module, int], object], n_scored: int) -> tuple[int, int]:
    """Operations to score one interaction, the mean over ``n_scored``; the rest as `forward_flops`.

    ``forward(model, times)`` scores these so many times in one batch. What a model does once for a batch, such as
    a propagation, counts whole: it is what does not grow when they are scored twice.
    """
    once, twice = (forward_flops(model, partial(forward, times=times)) for times in (1, 2))
    dense, sparse = (round(max(0, 2 * a - b) + (b - a) / n_scored) for a, b in zip(once, twice))
    return dense, sparse


class _Counter(DispatchMode):
    total = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        rule = _RULES.get(func.overloadpacket)
        result = out[0] if isinstance(out, tuple) else out
        # integers locate weights and do not count
        if rule is not None and result.is_floating_point():
            self.total += float(rule(result, *args))
        return out


@contextmanager
def _filled(model: nn.Module, filled: bool) -> Iterator[None]:
    """Within it, sparse weights are read as if every entry were alive."""
    weights = list(sparse_weights(model).values()) if filled else []
    try:
        for weight in weights:
            weight.rows = lambda ids, w=weight: _full(w, (*ids.shape, *w.shape[1:]))
            weight.dense = lambda w=weight: _full(w, w.shape)
        yield
    finally:
        for weight in weights:
            del weight.rows, weight.dense


def _full(weight: SparseWeight, shape: Sequence[int]) -> Tensor:
    return weight.values.new_empty(shape).uniform_(0.5, 1.5)


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.layout is not torch.strided:
        coo = a.to_sparse_coo().coalesce()
        entries = torch.bincount(coo.indices()[1], minlength=a.shape[1])
    else:
        entries = (a != 0).sum(-2)
    return 2 * (entries * (b != 0).sum(-1)).sum()


def _addition(a, b) -> Tensor:
    if not isinstance(b, Tensor):
        return a.count_nonzero()
    return ((a != 0) & (b != 0)).sum()


def _convolution(out, x, weight, bias, *rest) -> Tensor:
    ones = (x != 0).double(), (weight != 0).double()
    return 2 * aten.convolution(*ones, None, *rest).sum()


_RULES = {
    aten.mm: lambda out, a, b: _product(a, b),
    aten.mv: lambda out, a, b: _product(a, b.unsqueeze(-1)),
    aten.dot: lambda out, a, b: 2 * ((a != 0) & (b != 0)).sum(),
    aten.bmm: lambda out, a, b: _product(a, b),
    aten.addmm: lambda out, bias, a, b, **_: _product(a, b) + out.numel(),
    aten.baddbmm: lambda out, bias, a, b, **_: _product(a, b) + out.numel(),
    aten.convolution: _convolution,
    aten.mul: lambda out, a, b: out.count_nonzero(),
    aten.add: lambda out, a, b, **_: _addition(a, b),
    aten.sub: lambda out, a, b, **_: _addition(a, b),
    aten.sum: lambda out, a, *_: a.count_nonzero(),
    aten.mean: lambda out, a, *_: a.count_nonzero(),
}
# private operations of PyTorch, which other releases may not have
_OWN_RULES = {
    # the product with a propagation matrix: one entry for each id
    "_embedding_bag_forward_only": lambda out, table, ids, *_: 2 * (table != 0).sum(-1)[ids].sum(),
    "_embedding_bag": lambda out, table, ids, *_: 2 * (table != 0).sum(-1)[ids].sum(),
    "_sparse_addmm": lambda out, bias, a, b, **_: _product(a, b),
}
_RULES |= {getattr(aten, name): rule for name, rule in _OWN_RULES.items() if hasattr(aten, name)}
