"""Reading slots of a sparse weight: the gradient's layout, and columns in unsigned types."""

import torch
from torch import Tensor

from recbole_dsl.private_torch import entries_of

_SIGNED = {
    torch.uint8: torch.int8,
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.int64: torch.int64,
}
_ALL_BITS = {torch.uint8: 2**8 - 1, torch.uint16: 2**16 - 1, torch.uint32: 2**32 - 1, torch.int64: -1}


def gather(values: Tensor, slots: Tensor, sparse_gradient: bool = False, read: Tensor | None = None) -> Tensor:
    """``values[slots]`` for distinct, ascending ``slots`` (n,): (n,), differentiable.

    With ``sparse_gradient`` the gradient of ``values`` is a COO tensor of n entries, and costs what they cost.
    ``read`` (n,) then stands for what ``values`` would have there, were they up to date.
    """
    return _SparselyDifferentiated.apply(values, slots, read) if sparse_gradient else values.index_select(0, slots)


def spread_out(gradient: Tensor) -> Tensor:
    """A gradient as a dense tensor, whatever its layout."""
    if not gradient.is_sparse:
        return gradient
    (index,), values = entries_of(gradient)
    return values.new_zeros(gradient.shape).index_add_(0, index, values)


def smallest_unsigned(n: int) -> torch.dtype:
    """The smallest unsigned integer type that holds ``0 .. n - 1``."""
    for bits, dtype in ((8, torch.uint8), (16, torch.uint16), (32, torch.uint32)):
        if n <= 2**bits:
            return dtype
    return torch.int64


def signed_view(columns: Tensor) -> Tensor:
    """The same bits in the signed type of the same width."""
    return columns.view(_SIGNED[columns.dtype])


def all_bits(columns: Tensor) -> int:
    """What ``signed_view(columns).long()`` is to be masked with to get the unsigned numbers."""
    return _ALL_BITS[columns.dtype]


class _SparselyDifferentiated(torch.autograd.Function):
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
        spread = gradient.new_empty(2 * len(gradient))[::2].copy_(gradient)
        return torch.sparse_coo_tensor(slots.unsqueeze(0), spread, ctx.shape, check_invariants=False), None, None
