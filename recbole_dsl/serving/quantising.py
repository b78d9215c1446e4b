"""Storing values in few bits: a scale for each column or row, and a small number for each value."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.bits import pack, packed_bytes
from recbole_dsl.serving.csr import CSR, Floats, Ids

VALUES = ("fp32", "fp16", "int8", "int4")
# so that products of vectors fit into float32, however many columns there are
LARGEST_VALUE = 1e15
# the largest code of int8, on both sides of 0
_LARGEST = 127
# scales of int8 have few significant bits: their product with any code is exact, and quantising again changes
# nothing
_SCALE_BITS = 16
# the scales that a byte tells: 0, and from 2**-15 on 16 of each power of two
_BYTE_SCALES = np.ldexp(1 + np.arange(256) % 16 / 16, np.arange(256) // 16 - 15).astype(np.float32)
_BYTE_SCALES[0] = 0
# shares of the largest entry that are tried: of a column in int8, where it is clipped; of a row in int4, its scale
_CLIPS, _SCALES = np.linspace(0.4, 1, 13), np.linspace(0.75, 1.15, 6)
# magnitudes of int4, and entries that they are chosen from
N_LEVELS, _SAMPLE = 8, 2**16
# times that levels and scales are chosen by each other, and steps of each choice of levels
_ROUNDS, _STEPS = 3, 20


def quantise(matrix: CSR, values: str) -> dict[str, NDArray]:
    """The arrays that store the values of ``matrix``.

    fp32 and fp16 are ``codes`` alone. int8 has ``codes`` from -127 to 127 and ``scales`` (n_columns,). int4 has
    ``codes`` from 0 to 15, two a byte, ``levels`` (8,), and ``scales`` (rows,) of one byte, which are multiples of
    the ``unit`` as `decoded_scales` gives them. Of the products of `signed_levels` with the scale of its row, an
    entry has the nearest one. The levels are where the entries are (Lloyd 1982): a sparse table has few near 0,
    for these are pruned.

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
    return _in_int8(matrix) if values == "int8" else _in_int4(matrix)


def int8_is_smaller(matrix: CSR) -> bool:
    """Whether ``matrix`` takes fewer bytes in int8 than in int4, which has a scale for each row."""
    nnz = len(matrix.values)
    return nnz + 4 * matrix.n_columns < packed_bytes(nnz, 4) + matrix.n_rows + 4 * (N_LEVELS + 1)


def decoded_scales(scales: NDArray) -> Floats:
    """The ``scales`` of int4 as multiples of their unit; earlier files have them in float16."""
    return _BYTE_SCALES[scales] if scales.dtype == np.uint8 else scales.astype(np.float32)


def signed_levels(levels: Floats | None) -> Floats:
    """(16,) what each code of int4 stands for, in scales; without ``levels``, as in earlier files, -8 to 7."""
    if levels is None:
        return np.arange(-8, 8, dtype=np.float32)
    return np.concatenate([-levels[::-1], levels])


def _in_int8(matrix: CSR) -> dict[str, NDArray]:
    """Each column is clipped where its squared error is the least."""
    x, columns = matrix.values, matrix.column_of_entry()

    def codes(scales: Floats) -> Floats:
        return np.rint(_ratios(x, scales[columns])).clip(-_LARGEST, _LARGEST)

    def tried(clip: float) -> tuple[Floats, Floats]:
        scales = _rounded_up(largest * np.float32(clip) / np.float32(_LARGEST), _SCALE_BITS)
        return scales, codes(scales) * scales[columns]

    largest = _largest(np.abs(x), columns, matrix.n_columns)
    scales = _best(x, columns, matrix.n_columns, map(tried, _CLIPS[::-1]))
    return {"codes": codes(scales).astype(np.int8), "scales": scales}


def _in_int4(matrix: CSR) -> dict[str, NDArray]:
    """Levels of some rows, and for each row the scale with the least squared error."""
    x, rows = np.abs(matrix.values), matrix.row_of_entry()
    # a power of two, so that it rounds nothing
    unit = np.float32(2.0 ** np.ceil(np.log2(max(_SCALES[-1] * float(x.max(initial=0)), 2.0**-100))))
    x /= unit
    largest = _largest(x, rows, matrix.n_rows)
    is_some = np.zeros(matrix.n_rows, bool)
    is_some[:: max(1, len(x) // _SAMPLE)] = True
    among = is_some[rows]
    some, rows_of_some = x[among], (np.cumsum(is_some) - 1)[rows[among]]
    scales, levels = _byte_scales(largest[is_some]), None
    for _ in range(_ROUNDS):
        levels = _refined(levels, some, scales[rows_of_some])
        scales = _row_scales(some, rows_of_some, largest[is_some], levels)
    scales = _row_scales(x, rows, largest, levels)
    codes = _nearest(_ratios(x, scales[rows]), levels)
    codes = np.where(matrix.values < 0, N_LEVELS - 1 - codes, N_LEVELS + codes).astype(np.uint8)
    unit = np.array([unit], np.float32)
    return {"codes": pack(codes, 4), "levels": levels, "scales": _encoded_scales(scales), "unit": unit}


def _row_scales(x: Floats, rows: Ids, largest: Floats, levels: Floats) -> Floats:
    """(n_rows,) of the scales that a byte can tell, those with the least squared error of the magnitudes ``x``."""

    def tried(share: float) -> tuple[Floats, Floats]:
        scales = _byte_scales(largest * np.float32(share))
        of_entry = scales[rows]
        return scales, levels[_nearest(_ratios(x, of_entry), levels)] * of_entry

    return _best(x, rows, len(largest), map(tried, _SCALES))


def _refined(levels: Floats | None, x: Floats, scales: Floats) -> Floats:
    """(8,) ascending: the means of the magnitudes ``x``, in ``scales``, that are nearest to each of ``levels``."""
    ratios, weights = _ratios(x, scales), scales.astype(np.float64) ** 2
    if levels is None:
        shares = (np.arange(N_LEVELS) + 0.5) / N_LEVELS
        levels = np.quantile(ratios, shares).astype(np.float32) if len(ratios) else shares.astype(np.float32)
    for _ in range(_STEPS):
        nearest = _nearest(ratios, levels)
        sums, totals = (np.bincount(nearest, w, N_LEVELS) for w in (weights * ratios, weights))
        means = np.divide(sums, totals, out=levels.astype(np.float64), where=totals > 0)
        levels = np.sort(means).astype(np.float32)
    return levels


def _nearest(ratios: Floats, levels: Floats) -> Ids:
    return np.searchsorted((levels[1:] + levels[:-1]) / 2, ratios)


def _best(x: Floats, groups: Ids, n_groups: int, tried: Iterable[tuple[Floats, Floats]]) -> Floats:
    """(n_groups,) of several scales, each with what ``x`` becomes, those with the least squared error."""
    best, best_error = np.zeros(n_groups, np.float32), np.full(n_groups, np.inf)
    for scales, decoded in tried:
        error = np.bincount(groups, (decoded - x) ** 2, n_groups)
        best = np.where(error < best_error, scales, best)
        best_error = np.minimum(error, best_error)
    return best


def _largest(x: Floats, groups: Ids, n_groups: int) -> Floats:
    largest = np.zeros(n_groups, np.float32)
    np.maximum.at(largest, groups, x)
    return largest


def _ratios(x: Floats, scales: Floats) -> Floats:
    return np.divide(x, scales, out=np.zeros_like(x), where=scales > 0)


def _encoded_scales(scales: Floats) -> NDArray[np.uint8]:
    """``scales`` of at most 1 in a byte each, rounded up."""
    return np.searchsorted(_BYTE_SCALES, scales).astype(np.uint8)


def _byte_scales(scales: Floats) -> Floats:
    return decoded_scales(_encoded_scales(scales))


def _rounded_up(scales: Floats, bits: int) -> Floats:
    """``scales`` rounded up to so many significant bits."""
    fraction, exponent = np.frexp(scales)
    return np.ldexp(np.ceil(np.ldexp(fraction, bits)), exponent - bits).astype(np.float32)
