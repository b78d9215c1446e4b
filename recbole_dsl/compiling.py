"""Loops that Numba compiles, where it is installed."""

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile a function at its first call, and keep that on the disk where there is a folder for it."""
    import numba

    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # there is no folder that may be written to: each process compiles anew
            return numba.njit(**options)(function)

    return decorate


@cache
def compiled_loops(module: str) -> ModuleType | None:
    """The ``module`` of functions that are `compiled`; None where Numba is not there, or not for this NumPy."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
