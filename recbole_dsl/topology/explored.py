"""Which weights were ever alive: one bit per position."""

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import n_true

_POPULATION = torch.tensor([bin(byte).count("1") for byte in range(256)], dtype=torch.uint8)


class Explored:
    """The positions of one tensor that were alive at any time, for the exploration rate R (Liu et al. 2021).

    Attributes:
        bits: (ceil(numel / 8),) uint8, position ``p`` in bit ``p % 8`` of byte ``p // 8``.
        count: number of positions marked.
    """

    def __init__(self, numel: int, device: torch.device):
        self.bits = torch.zeros((numel + 7) // 8, dtype=torch.uint8, device=device)
        self.count = 0

    def mark(self, start: int, alive: Tensor) -> None:
        """Mark the positions from ``start``, a multiple of 8, on where ``alive`` (n,), bool, is True."""
        packed = torch.from_numpy(np.packbits(alive.cpu().numpy(), bitorder="little")).to(self.bits.device)
        bits = self.bits[start >> 3 : (start >> 3) + len(packed)]
        self.count += _ones(packed & ~bits)
        bits |= packed

    def mark_at(self, positions: Tensor) -> None:
        """Mark the distinct ``positions`` (n,), int64."""
        places, bits = positions >> 3, (1 << (positions & 7)).to(torch.uint8)
        new = (self.bits.index_select(0, places) & bits) == 0
        # no bit twice, so that their sum is their union
        self.bits.index_add_(0, places[new], bits[new])
        self.count += n_true(new)

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
        self.count = sum(_ones(some) for some in self.bits.split(2**20))


def _ones(bits: Tensor) -> int:
    """Number of bits that are set in ``bits``, uint8."""
    return int(_POPULATION.to(bits.device)[bits.int()].sum())
