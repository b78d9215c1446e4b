"""Cold start: scoring by a history alone, for users that a model does not know."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_dsl.serving.csr import CSR


@contextmanager
def rating_rows(model: AbstractRecommender, histories: CSR) -> Iterator[None]:
    """Lets the autoencoder ``model`` read ``histories`` instead of those of the users that it is given."""

    def get_rating_matrix(user: Tensor) -> Tensor:
        values = np.ones(len(histories.columns), np.float32)
        if getattr(model, "time_aware", False):
            # as DiffRec weighs histories, the latest item most
            values = [np.linspace(model.w_min, model.w_max, length) for length in histories.lengths]
            values = np.concatenate(values).astype(np.float32)
        rows = torch.zeros(histories.n_rows, model.n_items, device=user.device)
        places = torch.from_numpy(histories.row_of_entry()), torch.from_numpy(histories.columns)
        rows[places[0].to(user.device), places[1].to(user.device)] = torch.from_numpy(values).to(user.device)
        return rows

    model.get_rating_matrix = get_rating_matrix
    try:
        yield
    finally:
        del model.get_rating_matrix


@contextmanager
def average_user(
    model: nn.Module, users: Tensor, averages: MutableMapping[nn.Embedding, Tensor]
) -> Iterator[None]:
    """Lets ``users``, looked up in a table of ``model``, give the average row of that table.

    Args:
        averages: the averages that are known; those that are computed are added.
    """

    def average(table: nn.Embedding, inputs: tuple, output: Tensor) -> Tensor | None:
        if not (inputs and inputs[0] is users):
            return None
        if table not in averages:
            # without the padding
            averages[table] = table.weight[1:].mean(0)
        return averages[table].expand_as(output)

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [table.register_forward_hook(average) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
