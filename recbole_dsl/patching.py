"""Names of other modules that are replaced for a block: why, in one thread only, and always put back."""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

_lock = threading.RLock()


def lock() -> threading.RLock:
    """Held while anything of the whole process is changed; never for long."""
    return _lock


@dataclass(frozen=True)
class Patch:
    """The ``name`` of ``module``, and why it is replaced. What other threads see of it does not change."""

    module: str
    name: str
    reason: str

    @contextmanager
    def by(self, value: Any) -> Iterator[None]:
        """Within it, this thread sees ``value`` in its place."""
        entry = threading.get_ident(), value
        try:
            with _lock:
                divided = self._divided()
                if divided is None:
                    divided = _Divided(getattr(self._owner(), self.name))
                    setattr(self._owner(), self.name, divided)
                divided.entries.append(entry)
            yield
        finally:
            with _lock:
                divided = self._divided()
                if divided is not None:
                    divided.entries[:] = [one for one in divided.entries if one is not entry]
                    if not divided.entries:
                        setattr(self._owner(), self.name, divided.usual)

    def undone(self) -> AbstractContextManager[None]:
        """Within it, this thread sees what was there before."""
        divided = self._divided()
        return self.by(getattr(self._owner(), self.name) if divided is None else divided.usual)

    def _owner(self) -> Any:
        return importlib.import_module(self.module)

    def _divided(self) -> "_Divided | None":
        found = getattr(self._owner(), self.name)
        return found if type(found) is _Divided else None


class _Divided:
    """To each thread what it sees: what was entered last in it, or what is usual."""

    def __init__(self, usual: Any):
        self.usual = usual
        self.entries: list[tuple[int, Any]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._seen()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen(), name)

    def _seen(self) -> Any:
        me = threading.get_ident()
        return next((value for thread, value in reversed(self.entries[:]) if thread == me), self.usual)


TORCH_LOAD = Patch("torch", "load", "the files that a model's constructor reads run nothing, and may be sparse")
STDOUT = Patch("sys", "stdout", "models of RecBole print while they are made, where recommendations may go")
PROGRESS_BAR = Patch("recbole.trainer.trainer", "tqdm", "bars vanish at their end and show the topology")
TENSORBOARD = Patch("recbole.trainer.trainer", "get_tensorboard", "only the first of several processes shows it")
PATCHES = (TORCH_LOAD, STDOUT, PROGRESS_BAR, TENSORBOARD)


def _after_fork() -> None:
    # the thread that held it is not in this process
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
