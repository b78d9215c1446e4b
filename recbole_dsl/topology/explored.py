"""The record of which weights were ever alive, at all positions or at a sample of them."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import n_true
from recbole_dsl.sparse.weight import SparseWeight

# positions up to which a record takes so little that it has them all
_SAMPLE = 2**20


class Explored:
    """The positions of one tensor that were alive at any time, for the exploration rate R (Liu et al. 2021).

    A bit for each position of a large tensor would take as much as a fifth of its alive weights. If not ``exact``,
    there is one for every `stride`-th position, 128 kB at most, and the others are assumed to change alike.

    Attributes:
        bits: uint8, position ``stride * i`` in bit ``i % 8`` of byte ``i // 8``.
        stride: 1 for every position of a small tensor, or of an exact record.
        count: number of positions that were alive. With a larger stride what grew since the start is estimated,
            with a standard error of about a thousandth of all positions at most.
    """

    def __init__(self, weight: SparseWeight, exact: bool):
        """Mark what is alive in ``weight`` now."""
        self._numel = weight.numel
        self.stride = 1 if exact else stride_of(weight)
        self.bits = torch.zeros(n_bytes(weight, self.stride), dtype=torch.uint8, device=weight.values.device)
        self.count = 0
        for block in weight.row_blocks():
            self.mark(weight.positions_in(*block) + block[0] * weight.n_columns)
        self.count = weight.nnz

    def mark(self, positions: Tensor) -> None:
        """Mark the distinct ``positions`` (n,), int64."""
        if self.stride > 1:
            positions = positions[positions % self.stride == 0] // self.stride
        places, bits = positions >> 3, (1 << (positions & 7)).to(torch.uint8)
        new = (self.bits.index_select(0, places) & bits) == 0
        # no bit is there twice, so the sum is the union
        self.bits.index_add_(0, places[new], bits[new])
        self.count = min(self._numel, self.count + self.stride * n_true(new))

    def marked_in(self, start: int, stop: int) -> Tensor:
        """Of an exact record, whether each position from ``start`` to ``stop`` is marked: (n,) bool."""
        first = start >> 3
        bits = self.bits[first : (stop + 7) >> 3]
        shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
        unpacked = ((bits.unsqueeze(1) >> shifts) & 1).bool().view(-1)
        return unpacked[start - 8 * first : stop - 8 * first]

    def load(self, bits: Tensor, count: int | None) -> None:
        """Take over a saved record of the same tensor, or one of every position, as old files have."""
        if count is None or self.stride == 1:
            count = sum(int(np.unpackbits(some.numpy(force=True)).sum()) for some in bits.split(2**20))
        if len(bits) != len(self.bits):
            positions = torch.arange(0, self._numel, self.stride, device=bits.device)
            sample = (bits.index_select(0, positions >> 3) >> (positions & 7)) & 1
            bits = torch.from_numpy(np.packbits(sample.numpy(force=True), bitorder="little"))
        self.bits.copy_(bits)
        self.count = count


def record_problem(weight: SparseWeight, stride: int | None, bits: Any, count: Any) -> str | None:
    """Why ``bits`` and ``count`` are not a record of ``weight``, or None.

    Args:
        stride: of the record that is to take them over, or None.
    """
    if count is not None and (type(count) is not int or not 0 <= count <= weight.numel):
        return f"must count 0 to {weight.numel} positions"
    strides = {1, stride or stride_of(weight)}
    # among strides whose records have the same size, the one with the most positions
    sizes = {n_bytes(weight, stride): stride for stride in sorted(strides, reverse=True)}
    if not isinstance(bits, Tensor) or bits.dtype != torch.uint8 or bits.dim() != 1 or len(bits) not in sizes:
        return f"must be {' or '.join(map(str, sizes))} bytes"
    unused = 8 * len(bits) - -(-weight.numel // sizes[len(bits)])
    if unused and int(bits[-1]) >> (8 - unused):
        return "has positions outside the weight"
    return None


def stride_of(weight: SparseWeight) -> int:
    """The distance of the positions of ``weight`` in the sample, such that all columns take part."""
    stride = -(-weight.numel // _SAMPLE)
    while math.gcd(stride, weight.n_columns) > 1:
        stride += 1
    return stride


def n_bytes(weight: SparseWeight, stride: int) -> int:
    """Size of a record of every ``stride``-th position of ``weight``."""
    return -(-weight.numel // (8 * stride))
