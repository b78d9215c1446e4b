"""The most memory that a piece of work takes, measured in a process of its own."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

_PROC = Path("/proc/self")
# blocks from here on are given back to the system when they are freed, so that none is hidden in reserve
_THRESHOLD = str(2**16)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``function(*arguments)`` in a new process, whose memory is as the system counts it."""
    before = dict(os.environ)
    os.environ.update({"MALLOC_MMAP_THRESHOLD_": _THRESHOLD, "MALLOC_TRIM_THRESHOLD_": _THRESHOLD})
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            return executor.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def peak_bytes(work: Callable[[], Any]) -> int:
    """Resident bytes at the peak of ``work`` beyond those before it. Linux only."""
    before = resident_bytes()
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return _sampled(work) - before
    work()
    return _status("VmHWM") - before


def _sampled(work: Callable[[], Any]) -> int:
    highest, done = [resident_bytes()], Event()

    def sample() -> None:
        while not done.wait(0.001):
            highest.append(max(highest.pop(), resident_bytes()))

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return max(highest[0], resident_bytes())


def resident_bytes() -> int:
    """Of this process, now. Linux only."""
    return int((_PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _status(name: str) -> int:
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{name}: not in /proc/self/status")
