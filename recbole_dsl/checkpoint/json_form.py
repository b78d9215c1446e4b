"""Values as JSON and named arrays, for a file that is read without unpickling, and back."""

import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.checkpoint.plain_data import decode, encode

# marks what JSON has no form of its own for
_MARK = "__json__"


def to_json(value: Any, arrays: MutableMapping[str, np.ndarray], name: str) -> Any:
    """``value``, as `plain_data.encode` takes it, as JSON.

    Its tensors, of which there may be many small ones, go into one array for each type, ``name.int64``, say.

    Raises:
        TypeError: if there is anything in it that has no such form.
    """
    pool: dict[str, list[np.ndarray]] = {}
    form = _form(encode(value), pool)
    for dtype, parts in pool.items():
        arrays[f"{name}.{dtype}"] = smallest(np.concatenate(parts))
    return form


def from_json(value: Any, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """What `to_json` made ``value`` and ``arrays`` of; nothing that they say is run.

    Raises:
        AttributeError, KeyError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError: if they are
            not of `to_json`.
    """
    return decode(_value(value, _Taking(arrays, name)))


def array_of(tensor: Tensor) -> np.ndarray:
    """``tensor`` as an array; what NumPy has no type for becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).contiguous().numpy()


def smallest(numbers: np.ndarray) -> np.ndarray:
    """``numbers`` in the smallest unsigned type that holds them, if they are integers and none is negative."""
    if numbers.dtype.kind not in "iu" or (numbers.size and numbers.min() < 0):
        return numbers
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def as_bytes(array: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """``array`` as bytes, and JSON for `from_bytes`; for a file that has not its type."""
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


def _form(value: Any, pool: MutableMapping[str, list[np.ndarray]]) -> Any:
    if isinstance(value, Tensor):
        array = array_of(value)
        parts = pool.setdefault(array.dtype.name, [np.zeros(0, array.dtype)])
        parts.append(array.reshape(-1))
        return {_MARK: "tensor", "of": [array.dtype.name, list(array.shape)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: "float", "of": repr(value)}
    if isinstance(value, list):
        return [_form(entry, pool) for entry in value]
    if isinstance(value, dict):
        # the file sorts names
        is_plain = _MARK not in value and all(isinstance(key, str) for key in value)
        if is_plain and list(value) == sorted(value):
            return {key: _form(entry, pool) for key, entry in value.items()}
        return {_MARK: "pairs", "of": [[_form(key, pool), _form(entry, pool)] for key, entry in value.items()]}
    return value


def _value(value: Any, take: Callable[[str, list[int]], Tensor]) -> Any:
    if isinstance(value, list):
        return [_value(entry, take) for entry in value]
    if not isinstance(value, dict):
        return value
    if _MARK not in value:
        # in the order in which they were stored
        return {key: _value(value[key], take) for key in sorted(value)}
    kind, of = value[_MARK], value["of"]
    if kind == "tensor":
        return take(*of)
    if kind == "float":
        return float(of)
    if kind == "pairs":
        return {_value(key, take): _value(entry, take) for key, entry in of}
    raise ValueError(f"{kind!r:.40} is no kind of value")


class _Taking:
    """Takes tensors out of arrays, each after the one before it of its type."""

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str):
        self._arrays, self._name = arrays, name
        self._taken: dict[str, int] = {}

    def __call__(self, dtype: str, shape: list[int]) -> Tensor:
        kind = np.dtype(dtype)
        if kind.kind not in "biufc" or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"a tensor of {dtype!r:.40}")
        start, size = self._taken.get(dtype, 0), math.prod(shape)
        part = self._arrays[f"{self._name}.{dtype}"][start : start + size]
        if part.dtype.kind not in ("iub" if kind.kind in "iub" else "iubfc"):
            raise ValueError(f"numbers for a tensor of {dtype} are {part.dtype}")
        self._taken[dtype] = start + size
        return torch.from_numpy(np.array(part, kind).reshape(shape))
