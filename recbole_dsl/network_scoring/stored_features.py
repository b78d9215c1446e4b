"""The values of a feature as arrays of few bytes: small numbers in few bits, repeated ones as runs."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from recbole_dsl.serving.bits import bits_for, pack, packed_bytes, unpack
from recbole_dsl.serving.csr import smallest

# the types that RecBole gives to features
_TYPES = frozenset({"int64", "float32", "float64", "bool"})


def store_feature(values: np.ndarray, name: str, arrays: MutableMapping[str, np.ndarray]) -> dict[str, Any]:
    """Put ``values`` into ``arrays`` under names that begin with ``name``; returns JSON for `read_feature`."""
    form = {"dtype": values.dtype.name, "shape": list(values.shape)}
    if values.dtype.kind not in "iu" or values.size == 0 or values.min() < 0:
        arrays[name] = values
        return form
    flat = values.reshape(-1)
    # the ends of the runs
    ends = np.append(np.flatnonzero(np.diff(flat)), len(flat) - 1)
    if values.ndim == 1 and 4 * len(ends) < len(flat):
        arrays[f"{name}.runs"] = smallest(flat[ends])
        arrays[f"{name}.lengths"] = smallest(np.diff(ends, prepend=-1))
        return {**form, "runs": True}
    bits = bits_for(int(flat.max()) + 1)
    if bits > 32 or bits == 8 * np.min_scalar_type(int(flat.max())).itemsize:
        arrays[name] = smallest(values)
        return form
    arrays[name] = pack(flat, bits)
    return {**form, "bits": bits}


def is_whole(form: Mapping[str, Any]) -> bool:
    """Whether every number of a feature takes bytes, so that the file proves its length."""
    return not form.get("runs")


def read_feature(form: Mapping[str, Any], length: int, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values, of ``length`` rows, that `store_feature` put into ``arrays``.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: if they are not such.
    """
    dtype, shape = form["dtype"], form["shape"]
    if dtype not in _TYPES or not all(type(n) is int and n >= 0 for n in shape) or shape[:1] != [length]:
        raise ValueError(f"{name} is {dtype!r:.40} of the shape {shape!r:.80}, must have {length} rows")
    if form.get("runs"):
        runs, lengths = (unsigned(arrays[f"{name}.{part}"], name) for part in ("runs", "lengths"))
        if lengths.min(initial=1) < 1 or lengths.sum() != length:
            raise ValueError(f"{name} must have {length} rows")
        return np.repeat(runs, lengths).astype(dtype)
    if "bits" in form:
        values = unsigned(arrays[name], name)
        bits, n = form["bits"], int(np.prod(shape, dtype=object))
        if type(bits) is not int or not 1 <= bits <= 32 or values.nbytes != packed_bytes(n, bits):
            raise ValueError(f"{name} must be {n} numbers of {bits!r:.40} bits")
        return unpack(values, bits, 0, n).reshape(shape).astype(dtype)
    values = arrays[name]
    if values.dtype.kind not in ("iu" if dtype == "int64" else "iufb"):
        raise ValueError(f"{name} is {values.dtype}, must be {dtype}")
    return values.reshape(shape).astype(dtype)


def unsigned(array: np.ndarray, name: str) -> np.ndarray:
    """``array``, which the file has under ``name``, if it is one-dimensional and unsigned.

    Raises:
        ValueError: if it is not.
    """
    if array.dtype.kind != "u" or array.ndim != 1:
        raise ValueError(f"{name} must be a row of unsigned integers")
    return array
