"""What a model keeps beside its weights (RecBole's ``other_parameter_name``), as data for a file and back."""

from collections.abc import Mapping, Set
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.plain_data import decode, encode
from recbole_dsl.errors import DSLError


def check_other_parameters(model: AbstractRecommender, derived: Set[str]) -> None:
    """Raise a DSLError for what `save_other_parameters` could not save; what is not known yet passes."""
    save_other_parameters(model, derived)


def save_other_parameters(model: AbstractRecommender, derived: Set[str]) -> dict[str, Any]:
    """What ``model`` lists, as tensors and plain data, but for what its weights give again.

    Tensors, NumPy's arrays and numbers, Python's numbers, strings, bytes, lists, tuples, sets and dictionaries
    come back as what they were. Left out are ``derived``, and modules, parameters and buffers that are in the
    state dict.

    Raises:
        DSLError: naming what has no such form.
    """
    others = _listed(model)
    kept = {}
    for name in saved_names(model, others, derived):
        try:
            kept[name] = encode(others[name])
        except (TypeError, RecursionError) as error:
            raise DSLError(
                f"other_parameter_name={name} of {type(model).__name__}: {error}; it must be made of tensors, "
                "arrays and plain data, or not be listed"
            ) from error
    return kept


def read_other_parameters(
    model: AbstractRecommender, saved: Mapping[str, Any], derived: Set[str], path: str
) -> dict[str, Any]:
    """What `save_other_parameters` made ``saved`` of, read from ``path``, for ``model.load_other_parameter``.

    Raises:
        DSLError: if it names what ``model`` does not list, or is not such data.
    """
    listed = {**dict.fromkeys(getattr(model, "other_parameter_name", ())), **_listed(model)}
    allowed = saved_names(model, listed, derived)
    if not isinstance(saved, Mapping):
        raise DSLError(f"model_file={path}: other_parameter must be a mapping")
    for name in saved:
        if name not in allowed and name not in derived:
            raise DSLError(
                f"model_file={path}: has other_parameter={name}, which {type(model).__name__} does not list"
            )
    try:
        return {name: decode(value) for name, value in saved.items() if name in allowed}
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise DSLError(f"model_file={path}: other_parameter is damaged: {' '.join(str(error).split())}") from error


def saved_names(model: AbstractRecommender, others: Mapping[str, Any], derived: Set[str]) -> list[str]:
    """Those of ``others`` that are neither ``derived`` nor in the state dict of ``model``."""
    in_state = {*model._modules, *model._parameters, *model._buffers} - model._non_persistent_buffers_set
    return [name for name in others if name not in derived and name not in in_state]


def _listed(model: AbstractRecommender) -> dict[str, Any]:
    """Its other parameters; some may be made in training, and not be there yet."""
    if type(model).other_parameter is not AbstractRecommender.other_parameter:
        try:
            return model.other_parameter()
        except AttributeError:
            pass
    names = getattr(model, "other_parameter_name", ())
    return {name: getattr(model, name) for name in names if hasattr(model, name)}
