"""Deep hash embeddings, which have no table (Kang et al. 2021, arXiv 2010.10784), from its text."""

from itertools import pairwise

import torch
from torch import Tensor, nn

N_HASHES = 1024
N_BUCKETS = 1_000_000
# of hidden layers, which have as many units as each other
N_LAYERS = 2
# a product of it and a token stays below 2 ** 63
_PRIME = 2_147_483_647


class DeepHash(nn.Module):
    """Rows that a network makes of hashes of their tokens.

    A token is hashed to numbers from -1 to 1 by `N_HASHES` functions, which a seed gives. Only the weights of the
    network are stored. Its rows have about the standard deviation of ``weight`` at first.

    Args:
        weight: the dense table, (tokens, columns), for its shape and standard deviation.
        n_units: of each hidden layer.
    """

    def __init__(self, weight: Tensor, n_units: int, seed: int = 0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        factors = torch.randint(1, _PRIME, (2, N_HASHES), generator=random)
        self.register_buffer("factors", factors, persistent=False)
        widths = [N_HASHES] + N_LAYERS * [n_units]
        hidden = [
            part
            for before, after in pairwise(widths)
            for part in (nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.Mish())
        ]
        self.decoder = nn.Sequential(*hidden, nn.Linear(n_units, weight.shape[1]))
        with torch.no_grad():
            tokens = torch.randint(len(weight), (256,), generator=random)
            self.decoder[-1].weight.mul_(weight.std() / self.decoder(self.encoded(tokens)).std())
            self.decoder[-1].bias.zero_()

    def encoded(self, tokens: Tensor) -> Tensor:
        """(n, N_HASHES) float32 from -1 to 1, of (n,) int64."""
        hashes = (self.factors[0] * tokens[:, None] + self.factors[1]) % _PRIME % N_BUCKETS
        return hashes.float() * (2 / (N_BUCKETS - 1)) - 1

    def forward(self, tokens: Tensor) -> Tensor:
        # a token that a batch has many times is worth one pass, and counts once in what batches are normalised by
        once, places = tokens.unique(return_inverse=True)
        return self.decoder(self.encoded(once))[places]


def n_weights(n_units: int, n_columns: int) -> int:
    """Weights of a `DeepHash` of ``n_columns`` columns."""
    of_layers = N_HASHES + (N_LAYERS - 1) * n_units
    return n_units * (of_layers + 2 * N_LAYERS) + (n_units + 1) * n_columns


def hash_deeply(model: nn.Module, wanted: int) -> None:
    """Make the rows of a context-aware model from hashes, in place, so that its weights are nearest to ``wanted``.

    All fields share a network. Tables of one column stay as they are.
    """
    table = model.token_embedding_table
    weight = table.embedding.weight.detach()
    rest = sum(p.numel() for p in model.parameters()) - weight.numel()

    def distance(n_units: int) -> int:
        return abs(rest + n_weights(n_units, weight.shape[1]) - wanted)

    table.embedding = DeepHash(weight, min(range(2, 513), key=distance))
