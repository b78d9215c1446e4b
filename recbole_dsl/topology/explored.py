"""Which weights were ever alive: one bit per position."""

import torch
from torch import Tensor


class Explored:
    """The positions of one tensor that were alive at any time, for the exploration rate R (Liu et al. 2021).

    Attributes:
        bits: (ceil(numel / 8),) uint8, position ``p`` in bit ``p % 8`` of byte ``p // 8``.
        count: number of positions marked.
    """

    def __init__(self, numel: int, device: torch.device):
        self.bits = torch.zeros((numel + 7) // 8, dtype=torch.uint8, device=device)
        self.count = 0

    def mark(self, positions: Tensor) -> None:
        """Mark ``positions`` (n,), int64, distinct."""
        byte, bit = positions >> 3, (1 << (positions & 7)).to(torch.uint8)
        new = (self.bits[byte] & bit) == 0
        # adding distinct unset bits is the same as OR, which has no scatter form
        self.bits.index_add_(0, byte[new], bit[new])
        self.count += int(new.sum())

    def marked_in(self, start: int, stop: int) -> Tensor:
        """Whether each position from ``start`` to ``stop`` is marked: (stop - start,), bool."""
        first = start >> 3
        bits = self.bits[first : (stop + 7) >> 3]
        shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
        unpacked = ((bits.unsqueeze(1) >> shifts) & 1).bool().view(-1)
        return unpacked[start - 8 * first : stop - 8 * first]

    def load(self, bits: Tensor) -> None:
        """Take over the ``bits`` of another run on the same tensor."""
        self.bits.copy_(bits)
        self.count = sum(int(((bits >> shift) & 1).sum()) for shift in range(8))
