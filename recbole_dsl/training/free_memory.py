"""Memory that a process no longer uses."""

import ctypes
import sys
from contextlib import suppress


def return_free_memory() -> None:
    """Give free memory back to the system, where the C library has a function for that.

    glibc keeps what large temporary arrays leave behind between others, and later parts of a job add to it.
    """
    if sys.platform == "linux":
        # musl has none
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
