"""Start sparse weights, above all tables of users and items, from the interactions that a model is trained on."""

from collections.abc import Iterator

import torch
from recbole.data.dataset import Dataset
from torch import nn

from recbole_dsl.sparse.modules import SparseEmbedding, sparse_weights
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.spectral import Factors, start_from


def start_weights(model: nn.Module, dataset: Dataset, seed: int) -> list[str]:
    """Give the sparse tables of users and of items in ``model`` a topology and values from ``dataset``.

    The values of its other sparse weights are divided by the root of their density: with fewer terms in each sum,
    the outputs keep the variance that the initialiser gave them.

    That is for ``sparse_init=svd``, once, for weights that `sparsify` made and nothing was loaded into; see
    `Factors`. The users' entries are compared by their share of the row, so that every user gets about as many, as
    all count alike in a metric; the items' as they are, so that popular ones get more.

    Returns:
        The names of the tables.
    """
    factors: dict[int, Factors] = {}
    generator = torch.Generator().manual_seed(seed)
    started = []
    for name, side, weight in tables_of(model, dataset):
        if not weight.awaits_data:
            continue
        if weight.n_columns not in factors:
            factors[weight.n_columns] = Factors(dataset.inter_matrix("csr"), weight.n_columns, seed)
        rows = getattr(factors[weight.n_columns], f"{side}s")
        start_from(weight, rows, generator, by_share=side == "user")
        started.append(name)
    for name, weight in sparse_weights(model).items():
        if weight.awaits_data and name not in started:
            weight.values.detach().mul_(weight.density**-0.5)
        weight.awaits_data = False
    return started


def tables_of(model: nn.Module, dataset: Dataset) -> Iterator[tuple[str, str, SparseWeight]]:
    """The sparse tables of users and of items in ``model``: name, "user" or "item", weight.

    A table is one of users if it is an embedding of two columns or more with as many rows as ``dataset`` has
    users, and so with items; if it has as many users as items, the name must hold "user" or "item".
    """
    if not (dataset.uid_field and dataset.iid_field):
        return
    rows = {"user": dataset.user_num, "item": dataset.item_num}
    for name, module in model.named_modules():
        if not isinstance(module, SparseEmbedding) or module.embedding_dim < 2:
            continue
        sides = [side for side in rows if rows[side] == module.num_embeddings]
        if len(sides) > 1:
            sides = [side for side in sides if side in name.lower()]
        if len(sides) == 1:
            yield f"{name}.weight", sides[0], module._modules["weight"]
