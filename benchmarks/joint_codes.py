"""Joint product quantisation of items, RecJPQ (Petrov and Macdonald 2024, arXiv 2312.06165), from its text."""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from torch import Tensor, nn

N_CENTROIDS = 256


class JointCodes(nn.Module):
    """A table whose rows are put together from parts that items share, and learned with the model.

    Args:
        weight: the dense table, (items, columns), for its shape and standard deviation; row 0 is padding.
        interactions: (users, items).
        n_codes: parts of a row, of ``columns / n_codes`` columns; one byte each.
    """

    def __init__(self, weight: Tensor, interactions: csr_matrix, n_codes: int, seed: int = 0):
        super().__init__()
        columns = weight.shape[1]
        codes = svd_codes(interactions, n_codes, seed)
        places = torch.from_numpy(codes.astype(np.int64)) + N_CENTROIDS * torch.arange(n_codes)
        self.register_buffer("codes", torch.from_numpy(codes))
        self.register_buffer("places", places, persistent=False)
        self.centroids = nn.Parameter(torch.randn(n_codes * N_CENTROIDS, columns // n_codes) * weight.std())

    def forward(self, items: Tensor) -> Tensor:
        rows = self.centroids[self.places[items]].flatten(-2)
        return rows * (items != 0)[..., None]

    @property
    def weight(self) -> Tensor:
        """All rows, (items, columns)."""
        return self(torch.arange(len(self.places), device=self.places.device))


def svd_codes(interactions: csr_matrix, n_codes: int, seed: int = 0) -> np.ndarray:
    """(items, n_codes) uint8: in which of 256 quantiles of a singular vector of ``interactions`` an item lies.

    Items without interactions are equal there, and get any of the quantiles in turn.
    """
    random = np.random.default_rng(seed)
    n_items = interactions.shape[1]
    _, _, vectors = svds(interactions.astype(np.float64), k=n_codes, v0=random.random(min(interactions.shape)))
    codes = np.empty((n_items, n_codes), np.uint8)
    for number, vector in enumerate(vectors):
        order = np.lexsort((random.random(n_items), vector))
        codes[order, number] = np.arange(n_items) * N_CENTROIDS // n_items
    return codes


def code_items(model: nn.Module, interactions: csr_matrix, wanted: int) -> None:
    """Put the item rows of ``model`` together from codes, in place, so that it is nearest to ``wanted`` bytes."""
    weight = model.item_embedding.weight.detach()
    rows, columns = weight.shape
    rest = 4 * (sum(p.numel() for p in model.parameters()) - weight.numel() + N_CENTROIDS * columns)
    sizes = [n for n in range(1, columns // 2 + 1) if columns % n == 0]
    n_codes = min(sizes, key=lambda n: abs(rest + rows * n - wanted))
    model.item_embedding = JointCodes(weight, interactions, n_codes)


def code_bytes(model: nn.Module) -> int:
    """Bytes of the codes of all items."""
    return sum(module.codes.nbytes for module in model.modules() if isinstance(module, JointCodes))
