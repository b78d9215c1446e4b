"""Change a module when it is imported, and the names that one module sees of another."""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Around = Callable[[], AbstractContextManager]
Change = Callable[[ModuleType], None]

_around: dict[str, list[Around]] = {}
_after: dict[str, list[Change]] = {}


def around_import(name: str) -> Callable[[Around], Around]:
    """Decorate a function without arguments: the module ``name`` is executed in the context that it returns."""

    def register(around: Around) -> Around:
        _around.setdefault(name, []).append(around)
        return around

    return register


def after_import(*names: str) -> Callable[[Change], Change]:
    """Decorate a function that changes each of the modules ``names`` when it has been executed."""

    def register(change: Change) -> Change:
        for name in names:
            _after.setdefault(name, []).append(change)
        return change

    return register


def replaced(module: ModuleType, **names: Any) -> ModuleType:
    """What ``module`` is to one module that uses it: the same, but for ``names``."""
    view = ModuleType(module.__name__, module.__doc__)
    vars(view).update(names)
    view.__getattr__ = functools.partial(getattr, module)
    return view


def start() -> None:
    """Change the modules that have been imported, and from now on those that are."""
    sys.meta_path.insert(0, _Finder())
    for name, changes in _after.items():
        if name in sys.modules:
            for change in changes:
                change(sys.modules[name])


class _Finder(MetaPathFinder):
    """Finds what the other finders find, and has it executed with what was registered."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _around and name not in _after:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader.exec_module = functools.partial(_execute, spec.loader.exec_module)
                return spec
        return None


def _execute(exec_module: Callable[[ModuleType], None], module: ModuleType) -> None:
    with ExitStack() as stack:
        for around in _around.get(module.__name__, ()):
            stack.enter_context(around())
        exec_module(module)
    for change in _after.get(module.__name__, ()):
        change(module)
