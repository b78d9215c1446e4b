"""What models derive from their weights and keep beside them, which new weights make out of date."""

from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.checkpoint_file import load_weights
from recbole_dsl.options.recbole_models import facts_of
from recbole_dsl.training.other_parameters import read_other_parameters


def restore_model(model: AbstractRecommender, checkpoint: dict[str, Any], path: str) -> None:
    """Give ``model`` the weights, topology and other data of a checkpoint read from ``path``.

    Raises:
        DSLError: if they do not fit, or if the file names an attribute that ``model`` does not save; nothing is
            changed then.
    """
    others = read_other_parameters(model, checkpoint["other_parameter"], derived_names(model), path)
    load_weights(model, checkpoint["state_dict"], path)
    drop_caches(model)
    model.load_other_parameter(others)
    if hasattr(model, "update_attentive_A"):
        # KGAT and its trainer derive the attention from the weights, and save neither it nor that they did
        with torch.no_grad():
            model.update_attentive_A()


def drop_caches(model: AbstractRecommender) -> None:
    """Forget the dense representations that RecBole's models keep between evaluation batches."""
    for name in derived_names(model):
        if hasattr(model, name):
            setattr(model, name, None)


def derived_names(model: AbstractRecommender) -> frozenset[str]:
    """Names of what a model of RecBole, or one that is made from it, derives again when it is None.

    What a model of one's own keeps is not among them, whatever its name: only its author knows what it is for.
    """
    kinds = [kind for kind in type(model).__mro__ if kind.__module__.startswith("recbole.model.")]
    return frozenset().union(*(facts_of(kind.__name__).caches for kind in kinds))
