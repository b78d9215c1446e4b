"""Loops that Numba compiles, where it is installed."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Compile a function at its first call, and keep that on the disk where there is a folder for it."""
    options = {"nogil": True, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # there is no folder that may be written to: each process compiles anew
            return numba.njit(**options)(function)

    return decorate
