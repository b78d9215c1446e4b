"""What a model of RecBole keeps beside its weights: what it lists to be saved, and what it derives from them."""

from collections.abc import Mapping
from typing import Any

import torch
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.checkpoint_file import load_weights
from recbole_dsl.checkpoint.codec import decode, encode
from recbole_dsl.errors import DSLError, one_line
from recbole_dsl.options.recbole_models import facts_of


def restore_model(model: AbstractRecommender, checkpoint: Mapping[str, Any], path: str) -> None:
    """Give ``model`` the weights, topology and other parameters of a checkpoint read from ``path``.

    Raises:
        DSLError: if they do not fit, or if the file names an attribute that ``model`` does not save; nothing is
            changed then.
    """
    others = read_other_parameters(model, checkpoint["other_parameter"], path)
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
    """Names of what RecBole's part of ``model`` computes again from its weights when it is None.

    What a model of the user's own keeps is not among them, whatever its name: only its author knows its use.
    """
    kinds = [kind for kind in type(model).__mro__ if kind.__module__.startswith("recbole.model.")]
    return frozenset().union(*(facts_of(kind.__name__).caches for kind in kinds))


def save_other_parameters(model: AbstractRecommender) -> dict[str, Any]:
    """What ``model`` lists (RecBole's ``other_parameter_name``), as tensors and plain data.

    Tensors, NumPy's arrays and numbers, Python's numbers, strings, bytes, lists, tuples, sets and dictionaries
    come back as what they were. Left out are `derived_names`, and modules, parameters and buffers that are in the
    state dict.

    Raises:
        DSLError: naming what has no such form.
    """
    others = _listed(model)
    kept = {}
    for name in _saved_names(model, others):
        try:
            kept[name] = encode(others[name])
        except (TypeError, RecursionError) as error:
            raise DSLError(
                f"other_parameter_name={name} of {type(model).__name__}: {error}; it must be made of tensors, "
                "arrays and plain data, or not be listed"
            ) from error
    return kept


def read_other_parameters(model: AbstractRecommender, saved: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What `save_other_parameters` made ``saved`` of, read from ``path``, for ``model.load_other_parameter``.

    Raises:
        DSLError: if it names what ``model`` does not list, or is not such data.
    """
    allowed = _saved_names(model, {**dict.fromkeys(getattr(model, "other_parameter_name", ())), **_listed(model)})
    if not isinstance(saved, Mapping):
        raise DSLError(f"model_file={path}: other_parameter must be a mapping")
    for name in saved.keys() - derived_names(model):
        if name not in allowed:
            raise DSLError(
                f"model_file={path}: has other_parameter={name}, which {type(model).__name__} does not list"
            )
    try:
        return {name: decode(value) for name, value in saved.items() if name in allowed}
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise DSLError(f"model_file={path}: other_parameter is damaged: {one_line(str(error))}") from error


def _saved_names(model: AbstractRecommender, others: Mapping[str, Any]) -> list[str]:
    in_state = {*model._modules, *model._parameters, *model._buffers} - model._non_persistent_buffers_set
    left_out = in_state | derived_names(model)
    return [name for name in others if name not in left_out]


def _listed(model: AbstractRecommender) -> dict[str, Any]:
    """Its other parameters; some may be made in training, and not be there yet."""
    if type(model).other_parameter is not AbstractRecommender.other_parameter:
        try:
            return model.other_parameter()
        except AttributeError:
            pass
    names = getattr(model, "other_parameter_name", ())
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
