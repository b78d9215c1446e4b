"""Quotient-remainder hashing of the tables of fields (Shi et al. 2020, arXiv 1909.02107), from its text."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOST_COLLISIONS = 64


class QuotientRemainder(nn.Module):
    """Rows that are products of a row of quotients and one of remainders, those of each field by themselves.

    A field of n tokens has ``collisions`` rows of quotients and n / ``collisions`` of remainders, or n rows if
    that is fewer. No two tokens have the same pair. Values are normal; products have the variance of ``weight``.

    Args:
        weight: the dense table, (sum of ``sizes``, columns), for its shape and variance.
        sizes: number of tokens of each field.
    """

    def __init__(self, weight: Tensor, sizes: Sequence[int], collisions: int):
        super().__init__()
        quotients, remainders, whole = [], [], []
        n_quotients = n_remainders = 0
        for size in sizes:
            rows = n_rows(size, collisions)
            is_whole = rows == size
            n = size if is_whole else rows - collisions
            ids = torch.arange(size)
            quotients.append(n_quotients + (torch.zeros_like(ids) if is_whole else ids // n))
            remainders.append(n_remainders + ids % n)
            whole.append(torch.full((size,), is_whole))
            n_quotients += 0 if is_whole else collisions
            n_remainders += n
        # a last row for fields that are whole, whose quotients are 1
        quotient, is_whole = torch.cat(quotients), torch.cat(whole)
        self.register_buffer("quotient", torch.where(is_whole, n_quotients, quotient))
        self.register_buffer("remainder", torch.cat(remainders))
        width, scale = weight.shape[1], weight.std()
        self.quotients = nn.Parameter(torch.randn(n_quotients, width))
        self.remainders = nn.Parameter(torch.randn(n_remainders, width) * scale)

    def forward(self, ids: Tensor) -> Tensor:
        ones = self.quotients.new_ones(1, self.quotients.shape[1])
        quotients = torch.cat([self.quotients, ones])
        return quotients[self.quotient[ids]] * self.remainders[self.remainder[ids]]


def n_rows(size: int, collisions: int) -> int:
    """Rows of both tables for a field of ``size`` tokens."""
    return min(size, collisions + -(-size // collisions))


def hash_fields(model: nn.Module, wanted: int) -> None:
    """Hash the fields of a context-aware model, in place, so that its weights are nearest to ``wanted``.

    Tables of one column are hashed too.
    """
    tables = [one.token_embedding_table for one in (model, model.first_order_linear)]
    sizes = model.token_field_dims
    rest = sum(p.numel() for p in model.parameters()) - sum(table.embedding.weight.numel() for table in tables)
    width = sum(table.embedding.embedding_dim for table in tables)

    def distance(collisions: int) -> int:
        return abs(rest + width * sum(n_rows(size, collisions) for size in sizes) - wanted)

    collisions = min(range(2, MOST_COLLISIONS + 1), key=distance)
    for table in tables:
        table.embedding = QuotientRemainder(table.embedding.weight.detach(), sizes, collisions)
