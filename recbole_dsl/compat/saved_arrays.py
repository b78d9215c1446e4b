"""Arrays and matrices of NumPy and SciPy, read from a file that nobody vouches for.

Their own classes trust the state in a file: with a forged dtype, bytes of the file are used as pointers, and with
forged indices products read beyond an array.
"""

import re
from typing import Any

import numpy as np
from scipy import sparse

_CODES = re.compile(r"[biufc]\d{1,2}|[US]\d{1,6}|O[48]")
_ORDERS = ("<", ">", "|", "=")


class SavedType:
    """Stands for `numpy.dtype` while a file is read."""

    def __init__(self, code: str, *_: Any):
        if not isinstance(code, str) or not _CODES.fullmatch(code):
            raise ValueError(f"{code!r:.40} is no type of numbers, text or objects")
        self.dtype = np.dtype(code[0] if code[0] == "O" else code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in _ORDERS:
            raise ValueError(f"{state[1]!r:.40} is no order of bytes")
        self.dtype = self.dtype.newbyteorder(state[1])


class SavedArray(np.ndarray):
    """Stands for `numpy.ndarray` while a file is read; it is saved as one."""

    def __setstate__(self, state: Any) -> None:
        version, shape, of, is_fortran, content = state
        np.ndarray.__setstate__(self, (version, shape, of.dtype, bool(is_fortran), content))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


class SavedMatrix(np.matrix):
    """Stands for `numpy.matrix` while a file is read; it is saved as one."""

    __setstate__ = SavedArray.__setstate__

    def __reduce__(self) -> Any:
        return self.view(np.matrix).__reduce__()


def saved_array(kind: type, *_: Any) -> np.ndarray:
    """An empty array of ``kind``, `SavedArray` or `SavedMatrix`, which then takes the state in the file."""
    return np.ndarray.__new__(SavedMatrix if kind is SavedMatrix else SavedArray, (0,), np.int8)


def saved_number(of: SavedType, content: bytes) -> Any:
    """A number of NumPy."""
    (number,) = np.frombuffer(content, of.dtype)
    return number


def saved_bytes() -> bytes:
    """The bytes of an empty array, for which Python pickles a call of ``bytes``."""
    return b""


class _SavedSparse:
    """Stands for a sparse matrix of SciPy, and becomes one if its parts fit together."""

    kind: str

    def __setstate__(self, state: dict[str, Any]) -> None:
        shape = tuple(int(n) for n in state["_shape"])
        if self.kind == "lil_matrix":
            rows = [list(row) for row in np.asarray(state["rows"])]
            parts = (
                [value for row in np.asarray(state["data"]) for value in row],
                [column for row in rows for column in row],
                np.cumsum([0, *map(len, rows)]),
            )
        else:
            parts = tuple(np.asarray(state[name]) for name in ("data", "indices", "indptr"))
        made = (sparse.csr_matrix if self.kind == "lil_matrix" else getattr(sparse, self.kind))(parts, shape=shape)
        made.check_format(full_check=True)
        made = made.asformat(self.kind[:3])
        vars(self).update(vars(made))
        self.__class__ = type(made)


def _sparse_kinds() -> list[tuple[type, str]]:
    kinds = [getattr(sparse, f"{name}_matrix") for name in ("csc", "csr", "lil")]
    return [
        (type(k.__name__, (_SavedSparse,), {"kind": k.__name__}), f"{k.__module__}.{k.__name__}") for k in kinds
    ]


def stand_ins() -> list[tuple[Any, str]]:
    """Each class or function that a file may name, as (what is used in its place, its name)."""
    functions = [(saved_array, "_reconstruct"), (saved_number, "scalar")]
    return [
        (SavedType, "numpy.dtype"),
        (SavedArray, "numpy.ndarray"),
        (SavedMatrix, "numpy.matrix"),
        *(
            (made, f"{package}.multiarray.{name}")
            for made, name in functions
            for package in ("numpy.core", "numpy._core")
        ),
        *((saved_bytes, f"{package}.bytes") for package in ("builtins", "__builtin__")),
        *_sparse_kinds(),
    ]
