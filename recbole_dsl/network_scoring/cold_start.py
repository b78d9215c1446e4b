"""Scoring for who is none of the users that a model knows."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_dsl.serving.lists import Lists


@contextmanager
def rating_rows(model: AbstractRecommender, histories: Lists) -> Iterator[None]:
    """Within it, the autoencoder ``model`` reads ``histories`` in the place of those of the users it is given."""

    def get_rating_matrix(user: Tensor) -> Tensor:
        values = np.ones(len(histories.ids), np.float32)
        if getattr(model, "time_aware", False):
            # as DiffRec weighs what its users have done, the latest most
            lengths = np.diff(histories.offsets)
            values = [np.linspace(model.w_min, model.w_max, length) for length in lengths]
            values = np.concatenate(values).astype(np.float32)
        rows = torch.zeros(histories.n, model.n_items, device=user.device)
        places = torch.from_numpy(histories.owners()), torch.from_numpy(histories.ids)
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
    """Within it, ``users``, looked up in a table of ``model``, are the average of those that the table is of.

    Args:
        averages: those that are known of the weights as they are; what is not there is added.
    """

    def average(table: nn.Embedding, inputs: tuple, output: Tensor) -> Tensor | None:
        if not (inputs and inputs[0] is users):
            return None
        if table not in averages:
            # the row of the padding is none of a user
            averages[table] = table.weight[1:].mean(0)
        return averages[table].expand_as(output)

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [table.register_forward_hook(average) for table in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
