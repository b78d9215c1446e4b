"""Storing values in few bits: a scale for each column or row, and a small integer for each value."""

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.bits import pack
from recbole_dsl.serving.csr import CSR, Floats

VALUES = ("fp32", "fp16", "int8", "int4")
# so that products of vectors fit into float32, however many columns there are
LARGEST_VALUE = 1e15
# the largest code, on both sides of 0
_LARGEST = {"int8": 127, "int4": 7}
# scales have few significant bits: their product with any code is exact, so quantising again changes nothing
_SCALE_BITS = 16
# the scales that a byte tells: 0, and from 2**-15 on 16 of each power of two
_BYTE_SCALES = np.ldexp(1 + np.arange(256) % 16 / 16, np.arange(256) // 16 - 15).astype(np.float32)
_BYTE_SCALES[0] = 0
# shares of the largest entry at which a column or row may be clipped
_CLIPS = np.linspace(0.4, 1, 13)


def quantise(matrix: CSR, values: str) -> dict[str, NDArray]:
    """The arrays that store the values of ``matrix``.

    fp32 and fp16 are ``codes`` alone. int8 has ``codes`` from -127 to 127 and ``scales`` (n_columns,). int4 has
    ``codes`` from 1 to 15 for -7 to 7, two a byte, and ``scales`` (rows,) of one byte, which are multiples of the
    ``unit`` as `decoded_scales` gives them. A value that is not clipped changes by half a scale at most.

    Raises:
        DSLError: if they are not finite, or too large for ``values``.
    """
    x = matrix.values
    if not (np.abs(x) <= LARGEST_VALUE).all():
        raise DSLError("the model has vectors that are too large or no numbers, and cannot be served")
    if values == "fp32":
        return {"codes": x}
    if values == "fp16":
        with np.errstate(over="ignore"):
            half = x.astype(np.float16)
        if not np.isfinite(half).all():
            raise DSLError(f"values=fp16: must be another, as the model has a value of {np.abs(x).max():.3g}")
        return {"codes": half}
    codes, scales, unit = _codes_and_scales(matrix, values)
    if values == "int8":
        return {"codes": codes.astype(np.int8), "scales": scales}
    packed = pack((codes + 8).astype(np.uint8), 4)
    return {"codes": packed, "scales": _encoded_scales(scales), "unit": np.array([unit], np.float32)}


def decoded_scales(scales: NDArray) -> Floats:
    """The ``scales`` of int4 as multiples of their unit; earlier files have them in float16."""
    return _BYTE_SCALES[scales] if scales.dtype == np.uint8 else scales.astype(np.float32)


def _encoded_scales(scales: Floats) -> NDArray[np.uint8]:
    """``scales`` of at most 1 in a byte each, rounded up."""
    return np.searchsorted(_BYTE_SCALES, scales).astype(np.uint8)


def _codes_and_scales(matrix: CSR, values: str) -> tuple[Floats, Floats, np.float32]:
    """Codes (nnz,), scales (columns or rows,) as multiples of the unit, and the unit.

    Each column or row is clipped where its squared error is the least.
    """
    x, largest_code, is_int8 = matrix.values, _LARGEST[values], values == "int8"
    groups = matrix.column_of_entry() if is_int8 else matrix.row_of_entry()
    n_groups = matrix.n_columns if is_int8 else matrix.n_rows
    largest = np.zeros(n_groups, np.float32)
    np.maximum.at(largest, groups, np.abs(x))
    # a power of two, so that it rounds nothing
    highest = max(float(largest.max(initial=0)) / largest_code, 2.0**-100)
    unit = np.float32(1) if is_int8 else np.float32(2.0 ** np.ceil(np.log2(highest)))
    best, best_error = np.zeros(n_groups, np.float32), np.full(n_groups, np.inf)
    for clip in _CLIPS[::-1]:
        scales = largest * np.float32(clip) / np.float32(largest_code) / unit
        scales = _rounded_up(scales, _SCALE_BITS) if is_int8 else decoded_scales(_encoded_scales(scales))
        of_entry = (scales * unit)[groups]
        error = np.bincount(groups, (_codes(x, of_entry, largest_code) * of_entry - x) ** 2, n_groups)
        best = np.where(error < best_error, scales, best)
        best_error = np.minimum(error, best_error)
    return _codes(x, (best * unit)[groups], largest_code), best, unit


def _codes(x: Floats, scales: Floats, largest: int) -> Floats:
    return np.rint(np.divide(x, scales, out=np.zeros_like(x), where=scales > 0)).clip(-largest, largest)


def _rounded_up(scales: Floats, bits: int) -> Floats:
    """``scales`` rounded up to so many significant bits."""
    fraction, exponent = np.frexp(scales)
    return np.ldexp(np.ceil(np.ldexp(fraction, bits)), exponent - bits).astype(np.float32)
