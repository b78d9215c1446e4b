"""What this package changes in other modules and in the process, each declared where it is made.

A `Patch` and a `Setting` last for a block. What lasts longer is made in a function that `changes` decorates, or in
`compat/` by `on_import.replaces`. docs/layout.md has a table of all of them, made by docs/changes.py.
"""

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable)
_lock = threading.RLock()


def lock() -> threading.RLock:
    """Held while anything of the whole process is changed; never for long."""
    return _lock


def changes(what: str, why: str, until: str = "its block ends") -> Callable[[_Function], _Function]:
    """Declare that the decorated function changes ``what``."""
    return lambda function: function


class Setting:
    """A setting of the whole process, which is another one within a block.

    All threads see what was set last, and what was there before the first block is back after the last one.

    Args:
        what: names it.
        why: the reason for which it is changed.
        read, write: get it and set it.
    """

    def __init__(self, what: str, why: str, read: Callable[[], Any], write: Callable[[Any], Any]):
        self.what, self.why = what, why
        self._read, self._write = read, write
        self._entries: list[list[Any]] = []

    @contextmanager
    def by(self, value: Any) -> Iterator[None]:
        """Within it, ``value`` is set."""
        entry = [value]
        with _lock:
            if not self._entries:
                self._usual = self._read()
            self._write(value)
            self._entries.append(entry)
        try:
            yield
        finally:
            with _lock:
                self._entries = [one for one in self._entries if one is not entry]
                self._write(self._entries[-1][0] if self._entries else self._usual)


def variable(name: str, why: str) -> Setting:
    """The environment variable ``name``, with None for none."""
    return Setting(f"os.environ[{name}]", why, partial(os.environ.get, name), partial(_set_variable, name))


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


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


def _after_fork() -> None:
    # the thread that held it is not in this process
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
