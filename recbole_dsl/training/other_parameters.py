"""What a model keeps beside its weights (RecBole's ``other_parameter_name``), as data for a file and back."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Set
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_dsl.errors import DSLError

# marks what a file has no form of its own for
_KIND = "__kind__"
# of NumPy's arrays: numbers, truth values, times and text of fixed length, but no objects
_DTYPES = "biufcmMSU"
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict}
_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float)}


def check_other_parameters(model: AbstractRecommender, derived: Set[str]) -> None:
    """Raise a DSLError for what `save_other_parameters` could not save; what is not known yet passes."""
    try:
        model.other_parameter()
    except AttributeError:
        # a model may make it during training
        return
    save_other_parameters(model, derived)


def save_other_parameters(model: AbstractRecommender, derived: Set[str]) -> dict[str, Any]:
    """What ``model`` lists, as tensors and plain data, but for what its weights give again.

    Tensors, NumPy's arrays and numbers, Python's numbers, strings, bytes, lists, tuples, sets and dictionaries
    come back as what they were. Left out are ``derived``, and modules, parameters and buffers that are in the
    state dict.

    Raises:
        DSLError: naming what has no such form.
    """
    others = model.other_parameter()
    kept = {}
    for name in saved_names(model, others, derived):
        try:
            kept[name] = _encode(others[name])
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
    try:
        listed = model.other_parameter()
    except AttributeError:
        listed = dict.fromkeys(getattr(model, "other_parameter_name", ()))
    allowed = saved_names(model, listed, derived)
    if not isinstance(saved, Mapping):
        raise DSLError(f"model_file={path}: other_parameter must be a mapping")
    for name in saved:
        if name not in allowed and name not in derived:
            raise DSLError(
                f"model_file={path}: has other_parameter={name}, which {type(model).__name__} does not list"
            )
    try:
        return {name: _decode(value) for name, value in saved.items() if name in allowed}
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise DSLError(f"model_file={path}: other_parameter is damaged: {' '.join(str(error).split())}") from error


def saved_names(model: AbstractRecommender, others: Mapping[str, Any], derived: Set[str]) -> list[str]:
    """Those of ``others`` that are neither ``derived`` nor in the state dict of ``model``."""
    in_state = {*model._modules, *model._parameters, *model._buffers} - model._non_persistent_buffers_set
    return [name for name in others if name not in derived and name not in in_state]


def _encode(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _plain_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in _DTYPES or isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"a {type(value).__name__} of {value.dtype} is neither numbers nor text")
        content = np.frombuffer(value.tobytes(), np.uint8)
        kind = "array" if isinstance(value, np.ndarray) else "number"
        data = torch.from_numpy(content.copy())
        return {_KIND: kind, "dtype": value.dtype.str, "shape": list(value.shape), "data": data}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is complex:
        return {_KIND: "complex", "data": [value.real, value.imag]}
    if type(value) in (bytes, bytearray):
        return {_KIND: type(value).__name__, "data": list(value)}
    if type(value) is list:
        return [_encode(entry) for entry in value]
    if type(value) in _SEQUENCES.values():
        return {_KIND: type(value).__name__, "data": [_encode(entry) for entry in value]}
    if isinstance(value, torch.Size):
        return {_KIND: "tuple", "data": list(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    # subclasses, of which a file would need the class
    for kind, made in ((Integral, int), (Real, float), (str, str)):
        if isinstance(value, kind):
            return made(value)
    raise TypeError(f"{type(value).__name__} is neither a tensor nor plain data")


def _encode_mapping(value: Mapping) -> Any:
    kind, factory = type(value).__name__, None
    if type(value) is defaultdict:
        factory = getattr(value.default_factory, "__name__", None)
        if value.default_factory is not _FACTORIES.get(factory):
            raise TypeError(f"a defaultdict of {value.default_factory} is not plain data")
    elif type(value) not in _MAPPINGS.values():
        raise TypeError(f"{kind} is neither a tensor nor plain data")
    if type(value) is dict and _KIND not in value and all(type(key) in (str, int) for key in value):
        return {key: _encode(entry) for key, entry in value.items()}
    pairs = [[_encode(key), _encode(entry)] for key, entry in value.items()]
    return {_KIND: kind, "data": pairs, **({"factory": factory} if kind == "defaultdict" else {})}


def _plain_tensor(tensor: Tensor) -> Tensor:
    """It without history and class, and with no more memory than it takes itself."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            tensor = tensor.as_subclass(Tensor)
    if (
        tensor.layout is torch.strided
        and tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    ):
        tensor = tensor.clone()
    return tensor


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if _KIND not in value:
        return {key: _decode(entry) for key, entry in value.items()}
    kind, data = value[_KIND], value["data"]
    if kind in ("array", "number"):
        dtype = np.dtype(str(value["dtype"]))
        if dtype.kind not in _DTYPES:
            raise ValueError(f"{dtype} is not allowed")
        array = np.frombuffer(data.cpu().numpy().tobytes(), dtype).reshape(value["shape"]).copy()
        return array if kind == "array" else array[()]
    if kind == "complex":
        return complex(*data)
    if kind in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[kind](list(data))
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_decode(entry) for entry in data)
    pairs = [(_decode(key), _decode(entry)) for key, entry in data]
    if kind == "defaultdict":
        return defaultdict(value["factory"] and _FACTORIES[value["factory"]], pairs)
    return _MAPPINGS[kind](pairs)
