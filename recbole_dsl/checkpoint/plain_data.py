"""Values as tensors and plain data, for a file that needs no unpickling."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.private_torch import DisableTorchFunctionSubclass

# marks what a file has no form of its own for
_KIND = "__kind__"
# of NumPy's arrays: numbers, truth values, times and text of fixed length, but no objects
_DTYPES = "biufcmMSU"
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict}
_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float)}


def plain(value: Any) -> Any:
    """A copy of ``value`` made of tensors and plain data, for a file that needs no unpickling.

    Raises:
        TypeError: if there is anything else in it.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    # numbers of numpy and subclasses of str would be pickled by their class
    for kind, made in ((bool, bool), (Integral, int), (Real, float), (str, str)):
        if isinstance(value, kind):
            return made(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} is neither a tensor nor plain data")


def plain_entries(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``values`` that `plain` accepts."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = plain(value)
        except TypeError:
            continue
    return kept


def encode(value: Any) -> Any:
    """``value`` as tensors, numbers, text, lists and dictionaries with text or integers as keys.

    Tensors, NumPy's arrays and numbers, Python's numbers, strings, bytes, lists, tuples, sets and dictionaries
    have such a form, of which `decode` makes what they were.

    Raises:
        TypeError: if there is anything else in it.
    """
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
        return [encode(entry) for entry in value]
    if type(value) in _SEQUENCES.values():
        return {_KIND: type(value).__name__, "data": [encode(entry) for entry in value]}
    if isinstance(value, torch.Size):
        return {_KIND: "tuple", "data": list(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    # subclasses, of which a file would need the class
    for kind, made in ((Integral, int), (Real, float), (str, str)):
        if isinstance(value, kind):
            return made(value)
    raise TypeError(f"{type(value).__name__} is neither a tensor nor plain data")


def decode(value: Any) -> Any:
    """What `encode` made ``value`` of; nothing that it says is run.

    Raises:
        AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError: if it is not of `encode`.
    """
    if isinstance(value, list):
        return [decode(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if _KIND not in value:
        return {key: decode(entry) for key, entry in value.items()}
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
        return _SEQUENCES[kind](decode(entry) for entry in data)
    pairs = [(decode(key), decode(entry)) for key, entry in data]
    if kind == "defaultdict":
        return defaultdict(value["factory"] and _FACTORIES[value["factory"]], pairs)
    return _MAPPINGS[kind](pairs)


def _encode_mapping(value: Mapping) -> Any:
    kind, factory = type(value).__name__, None
    if type(value) is defaultdict:
        factory = getattr(value.default_factory, "__name__", None)
        if value.default_factory is not _FACTORIES.get(factory):
            raise TypeError(f"a defaultdict of {value.default_factory} is not plain data")
    elif type(value) not in _MAPPINGS.values():
        raise TypeError(f"{kind} is neither a tensor nor plain data")
    if type(value) is dict and _KIND not in value and all(type(key) in (str, int) for key in value):
        return {key: encode(entry) for key, entry in value.items()}
    pairs = [[encode(key), encode(entry)] for key, entry in value.items()]
    return {_KIND: kind, "data": pairs, **({"factory": factory} if kind == "defaultdict" else {})}


def _plain_tensor(tensor: Tensor) -> Tensor:
    """It without history and class, and with no more memory than it takes itself."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        with DisableTorchFunctionSubclass():
            tensor = tensor.as_subclass(Tensor)
    if (
        tensor.layout is torch.strided
        and tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size()
    ):
        tensor = tensor.clone()
    return tensor
