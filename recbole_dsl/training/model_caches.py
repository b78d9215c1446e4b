"""What models derive from their weights and keep beside them, which new weights make out of date."""

from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_dsl.training.checkpoint import load_weights


def restore_model(model: AbstractRecommender, checkpoint: dict[str, Any], path: str) -> None:
    """Give ``model`` the weights, topology and other data of a checkpoint read from ``path``."""
    load_weights(model, checkpoint["state_dict"], path)
    drop_caches(model)
    model.load_other_parameter(checkpoint["other_parameter"])
    if hasattr(model, "update_attentive_A"):
        # KGAT and its trainer derive the attention from the weights, and save neither it nor that they did
        with torch.no_grad():
            model.update_attentive_A()


def drop_caches(model: AbstractRecommender) -> None:
    """Forget the dense representations that RecBole's models keep between evaluation batches."""
    for name in cached_tensors(model):
        setattr(model, name, None)


def cached_tensors(model: AbstractRecommender) -> set[str]:
    """Names of the tensors that a model derives from its weights, and derives again when they are None."""
    # most models list them among their other parameters; KGIN and MCCLK only name them as those do
    named = {name: value for name, value in vars(model).items() if name.startswith("restore_")}
    return {
        name
        for name, value in {**named, **model.other_parameter()}.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
