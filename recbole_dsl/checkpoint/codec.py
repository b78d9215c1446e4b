"""Values as tensors and plain data, or as JSON and arrays, and back: reading a file never runs what it says."""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, MutableMapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.private_torch import DisableTorchFunctionSubclass
from recbole_dsl.serving.csr import smallest

# marks what a checkpoint, and what JSON, has no form of its own for
_KIND, _MARK = "__kind__", "__json__"
# of NumPy's arrays: numbers, truth values, times and text of fixed length, but no objects
_DTYPES = "biufcmMSU"
_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}
_BYTES = {"bytes": bytes, "bytearray": bytearray}
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict}
_FACTORIES = {kind.__name__: kind for kind in (list, dict, set, int, float)}


def plain(value: Any) -> Any:
    """A copy of ``value`` made of tensors, numbers, text, lists and dictionaries; tuples and sets become lists.

    Raises:
        TypeError: if there is anything else in it.
    """
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    return _builtin(value)


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
    kind = type(value)
    if isinstance(value, Tensor):
        return _plain_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in _DTYPES or isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"a {kind.__name__} of {value.dtype} is neither numbers nor text")
        data = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
        name = "array" if isinstance(value, np.ndarray) else "number"
        return {_KIND: name, "dtype": value.dtype.str, "shape": list(value.shape), "data": data}
    if kind is complex:
        return {_KIND: "complex", "data": [value.real, value.imag]}
    if kind in _BYTES.values():
        return {_KIND: kind.__name__, "data": list(value)}
    if kind is list:
        return [encode(entry) for entry in value]
    if kind in _SEQUENCES.values() or kind is torch.Size:
        name = "tuple" if kind is torch.Size else kind.__name__
        return {_KIND: name, "data": [encode(entry) for entry in value]}
    if isinstance(value, Mapping):
        return _encode_mapping(value)
    return value if value is None else _builtin(value)


def decode(value: Any) -> Any:
    """What `encode` made ``value`` of.

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
    if kind in _BYTES:
        return _BYTES[kind](list(data))
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decode(entry) for entry in data)
    pairs = [(decode(key), decode(entry)) for key, entry in data]
    if kind == "defaultdict":
        return defaultdict(value["factory"] and _FACTORIES[value["factory"]], pairs)
    return _MAPPINGS[kind](pairs)


def to_json(value: Any, arrays: MutableMapping[str, np.ndarray], name: str) -> Any:
    """``value``, as `encode` takes it, as JSON.

    Its tensors, of which there may be many small ones, go into one array for each type, ``name.int64``, say.

    Raises:
        TypeError: if there is anything in it that has no such form.
    """
    pool: dict[str, list[np.ndarray]] = {}
    form = _to_json(encode(value), pool)
    for dtype, parts in pool.items():
        arrays[f"{name}.{dtype}"] = smallest(np.concatenate(parts))
    return form


def from_json(value: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """What `to_json` made ``value`` and ``arrays`` of.

    Raises:
        AttributeError, KeyError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError: if they are
            not of `to_json`.
    """
    taken: dict[str, int] = {}

    def take(dtype: str, shape: list[int]) -> Tensor:
        kind = np.dtype(dtype)
        if kind.kind not in "biufc" or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"a tensor of {dtype!r:.40}")
        start, size = taken.get(dtype, 0), math.prod(shape)
        part = arrays[f"{name}.{dtype}"][start : start + size]
        if part.dtype.kind not in ("iub" if kind.kind in "iub" else "iubfc"):
            raise ValueError(f"numbers for a tensor of {dtype} are {part.dtype}")
        taken[dtype] = start + size
        return torch.from_numpy(np.array(part, kind).reshape(shape))

    return decode(_from_json(value, take))


def array_of(tensor: Tensor) -> np.ndarray:
    """``tensor`` as an array; what NumPy has no type for becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).contiguous().numpy()


def as_bytes(array: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """``array`` as bytes, and JSON for `from_bytes`; for a file that does not have its type."""
    content = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return content, {"dtype": array.dtype.newbyteorder("<").str, "shape": list(array.shape)}


def from_bytes(content: np.ndarray, form: Mapping[str, Any]) -> np.ndarray:
    """What `as_bytes` was given.

    Raises:
        KeyError, TypeError, ValueError: if ``content`` is not of `as_bytes`.
    """
    dtype = np.dtype(str(form["dtype"]))
    if dtype.kind not in "biufc" or content.dtype != np.uint8:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(content.tobytes(), dtype).reshape(form["shape"])


def _builtin(value: Any) -> bool | int | float | str:
    """A number or text without its class, which a file would name: NumPy's, say, or a subclass of str."""
    for kind, make in ((bool, bool), (Integral, int), (Real, float), (str, str)):
        if isinstance(value, kind):
            return make(value)
    raise TypeError(f"{type(value).__name__} is neither a tensor nor plain data")


def _encode_mapping(value: Mapping) -> Any:
    kind, more = type(value).__name__, {}
    if type(value) is defaultdict:
        factory = getattr(value.default_factory, "__name__", None)
        if value.default_factory is not _FACTORIES.get(factory):
            raise TypeError(f"a defaultdict of {value.default_factory} is not plain data")
        more = {"factory": factory}
    elif type(value) not in _MAPPINGS.values():
        raise TypeError(f"{kind} is neither a tensor nor plain data")
    if type(value) is dict and _KIND not in value and all(type(key) in (str, int) for key in value):
        return {key: encode(entry) for key, entry in value.items()}
    return {_KIND: kind, "data": [[encode(key), encode(entry)] for key, entry in value.items()], **more}


def _plain_tensor(tensor: Tensor) -> Tensor:
    """It without history and class, and with no more memory than its elements take."""
    tensor = tensor.detach()
    if type(tensor) is not Tensor:
        with DisableTorchFunctionSubclass():
            tensor = tensor.as_subclass(Tensor)
    if tensor.layout is torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
        tensor = tensor.clone()
    return tensor


def _to_json(value: Any, pool: MutableMapping[str, list[np.ndarray]]) -> Any:
    if isinstance(value, Tensor):
        array = array_of(value)
        pool.setdefault(array.dtype.name, [np.zeros(0, array.dtype)]).append(array.reshape(-1))
        return {_MARK: "tensor", "of": [array.dtype.name, list(array.shape)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: "float", "of": repr(value)}
    if isinstance(value, list):
        return [_to_json(entry, pool) for entry in value]
    if isinstance(value, dict):
        # the file sorts names
        is_plain = _MARK not in value and all(isinstance(key, str) for key in value)
        if is_plain and list(value) == sorted(value):
            return {key: _to_json(entry, pool) for key, entry in value.items()}
        pairs = [[_to_json(key, pool), _to_json(entry, pool)] for key, entry in value.items()]
        return {_MARK: "pairs", "of": pairs}
    return value


def _from_json(value: Any, take: Callable[[str, list[int]], Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(entry, take) for entry in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        # in the order in which they were stored
        return {key: _from_json(value[key], take) for key in sorted(value)}
    kind, of = value[_MARK], value["of"]
    if kind == "tensor":
        return take(*of)
    if kind == "float":
        return float(of)
    if kind == "pairs":
        return {_from_json(key, take): _from_json(entry, take) for key, entry in of}
    raise ValueError(f"{kind!r:.40} is no kind of value")
