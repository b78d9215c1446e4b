"""A small two-tower model with every kind of weight, and what tests read off its topology."""

from contextlib import contextmanager

import torch
from torch import nn

from recbole_dsl.sparse import compressed_rows
from recbole_dsl.sparse.compressed_rows import row_blocks
from recbole_dsl.sparse.rewrite import exchanged
from recbole_dsl.sparse.weight import SparseWeight

USERS, ITEMS, WIDTH = 12, 15, 6


class Toy(nn.Module):
    """Embeddings (one padded), a linear layer, a three-dimensional weight and biases."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.user = nn.Embedding(USERS, WIDTH)
        self.item = nn.Embedding(ITEMS, WIDTH, padding_idx=0)
        self.layer = nn.Linear(2 * WIDTH, WIDTH)
        self.kernel = nn.Parameter(torch.randn(WIDTH, 2, 3))
        self.to(dtype)

    def forward(self, users, items):
        hidden = torch.tanh(self.layer(torch.cat([self.user(users), self.item(items)], -1)))
        # distinct factors, so that no two positions of the kernel get the same gradient
        factors = torch.linspace(1, 2, WIDTH, dtype=hidden.dtype)
        return hidden @ self.kernel.reshape(WIDTH, -1) @ factors + hidden.sum(-1)


def toy_batch(generator, n=64):
    users = torch.randint(USERS, (n,), generator=generator)
    items = torch.randint(ITEMS, (n,), generator=generator)
    return users, items, torch.randn(n, generator=generator, dtype=torch.float64)


def toy_loss(model, batch):
    users, items, wanted = batch
    return (model(users, items) - wanted).pow(2).mean()


def alive_positions(weight: SparseWeight) -> set:
    return set(weight.positions().tolist())


def exchange_at(weight: SparseWeight, slots: list, positions: list, states=()) -> None:
    """Prune ``slots`` and grow ``positions``."""
    mask = weight.alive_in(0, weight.n_rows)
    mask.view(-1)[weight.positions()[slots]] = False
    mask.view(-1)[positions] = True
    blocks = [mask[start:stop].view(-1) for start, stop in row_blocks(*mask.shape)]
    weight.exchange(lambda number, old: exchanged(old, blocks[number]), int(mask.sum()), states)


@contextmanager
def blocks_of(positions: int):
    """Go through weights in blocks of so many positions, to have many of them in a small weight."""
    usual, compressed_rows._BLOCK = compressed_rows._BLOCK, positions
    try:
        yield
    finally:
        compressed_rows._BLOCK = usual
