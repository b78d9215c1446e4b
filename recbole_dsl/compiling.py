"""Loops that Numba compiles, where it is installed."""

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile the decorated function when it is first called, and cache that on disk if it can be written."""
    import numba

    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # no folder can be written to: each process compiles anew
            return numba.njit(**options)(function)

    return decorate


@cache
def compiled_loops(module: str) -> ModuleType | None:
    """The ``module`` of `compiled` functions; None if Numba is missing, or does not support this NumPy."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
