"""A non-negative factorisation of the interactions, as SparseRec (arXiv 2411.12205) takes its first mask from."""

import numpy as np
import torch
from recbole.data.dataset import Dataset
from scipy.sparse import csr_matrix
from torch import Tensor

from recbole_dsl import DSLTrainer
from recbole_dsl.initialisation.factors import initialise_from
from recbole_dsl.training.data_start import sided_weights

_ROUNDS = 100
_ALL = slice(None)


def start_from_nmf(trainer: DSLTrainer, dataset: Dataset) -> None:
    """Make alive what is largest in the factors, with new random values of the size that the old ones had."""
    generator = torch.Generator().manual_seed(trainer.dsl_config.seed)
    factors: dict[int, NonNegativeFactors] = {}
    for sided in sided_weights(trainer.model, dataset).values():
        rank, weight = sided.n_factors, sided.weight
        if rank not in factors:
            factors[rank] = NonNegativeFactors(dataset.inter_matrix("csr"), rank, trainer.dsl_config.seed)
        scale = weight.values.detach().square().mean().sqrt().item()
        initialise_from(weight, sided.rows(factors[rank]), generator)
        weight.values.data.copy_(scale * torch.randn(weight.nnz, generator=generator))
    trainer.topology.restart()


class NonNegativeFactors:
    """Factors of users and of items, by multiplicative updates (Lee & Seung 2001).

    Args:
        matrix: (users, items) of interactions.
        rank: number of factors.
        seed: of their first values.
    """

    def __init__(self, matrix: csr_matrix, rank: int, seed: int):
        draw = np.random.default_rng(seed)
        matrix = matrix.astype(np.float32)
        users, items = (draw.random((rows, rank), dtype=np.float32) for rows in matrix.shape)
        for _ in range(_ROUNDS):
            users *= (matrix @ items) / (users @ (items.T @ items) + 1e-9)
            items *= (matrix.T @ users) / (items @ (users.T @ users) + 1e-9)
        self._users, self._items = torch.from_numpy(users), torch.from_numpy(items)

    def users(self, start: int, stop: int, columns: slice = _ALL) -> Tensor:
        """Those of the users from ``start`` to ``stop``: (stop - start, columns), float32."""
        return self._users[start:stop, columns]

    def items(self, start: int, stop: int, columns: slice = _ALL) -> Tensor:
        """Those of the items from ``start`` to ``stop``: (stop - start, columns), float32."""
        return self._items[start:stop, columns]
