"""A non-negative factorisation of the interactions, as SparseRec (arXiv 2411.12205) takes its first mask from."""

import numpy as np
import torch
from recbole.data.dataset import Dataset

from recbole_dsl import DSLTrainer
from recbole_dsl.spectral_start import tables_of
from recbole_dsl.topology.spectral import start_from

_ROUNDS = 100


def start_from_nmf(trainer: DSLTrainer, dataset: Dataset) -> None:
    """Make alive what is largest in the factors, with new random values of the size that the old ones had."""
    generator = torch.Generator().manual_seed(trainer.dsl_config.seed)
    factors = {}
    for _, side, weight in tables_of(trainer.model, dataset):
        columns = weight.n_columns
        if columns not in factors:
            factors[columns] = _factorise(dataset.inter_matrix("csr"), columns, trainer.dsl_config.seed)
        whole = torch.from_numpy(factors[columns][side])
        scale = weight.values.detach().square().mean().sqrt().item()
        start_from(weight, lambda start, stop, whole=whole: whole[start:stop], generator)
        weight.values.data.copy_(scale * torch.randn(weight.nnz, generator=generator))
    trainer.topology.restart()


def _factorise(matrix, rank: int, seed: int) -> dict[str, np.ndarray]:
    """Factors of users and items by multiplicative updates (Lee & Seung 2001), each (rows, rank)."""
    draw = np.random.default_rng(seed)
    matrix = matrix.astype(np.float32)
    users, items = (draw.random((rows, rank), dtype=np.float32) for rows in matrix.shape)
    for _ in range(_ROUNDS):
        users *= (matrix @ items) / (users @ (items.T @ items) + 1e-9)
        items *= (matrix.T @ users) / (items @ (users.T @ users) + 1e-9)
    return {"user": users, "item": items}
