"""Changing modules when they are imported."""

import builtins
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

from recbole_dsl.patching import changes

Around = Callable[[], AbstractContextManager]
Replace = Callable[[Any], Any]

_around: dict[str, list[Around]] = {}
# module -> the names to replace in it, each with what makes the replacement
_after: dict[str, list[tuple[str, Replace]]] = {}


def around_import(module: str, until: str) -> Callable[[Around], Around]:
    """Decorate a function without arguments: ``module`` is executed in the context that it returns.

    Args:
        until: when it is no longer needed.
    """

    def register(around: Around) -> Around:
        _around.setdefault(module, []).append(around)
        return around

    return register


def replaces(*targets: str, until: str) -> Callable[[Replace], Replace]:
    """Decorate a function that gets what a module of RecBole has under a name, and returns what it is to have.

    That happens when the module has been executed, or at once if it has been. A function that several modules
    share is replaced by the same one in all of them. The docstring of the decorated function says why.

    Args:
        targets: each ``module:name`` or ``module:Class.name``. Where there is no such name, the decorated function
            gets the builtin of that name, or None.
        until: when it is no longer needed.
    """

    def register(replace: Replace) -> Replace:
        made: dict[int, tuple[Any, Any]] = {}

        @functools.wraps(replace)
        def once(usual: Any) -> Any:
            if any(usual is new for _, new in made.values()):
                return usual
            if usual is None or id(usual) not in made:
                new = replace(usual)
                if isinstance(usual, FunctionType) and isinstance(new, FunctionType):
                    functools.update_wrapper(new, usual)
                made[id(usual)] = usual, new
            return made[id(usual)][1]

        for target in targets:
            module, _, name = target.partition(":")
            _after.setdefault(module, []).append((name, once))
        return replace

    return register


def replaced(module: ModuleType, **names: Any) -> ModuleType:
    """A view of ``module`` for one module that uses it, with other values for ``names``."""
    view = ModuleType(module.__name__, module.__doc__)
    vars(view).update(names)
    view.__getattr__ = functools.partial(getattr, module)
    return view


@changes(
    "sys.meta_path",
    "modules of RecBole are changed when they are imported, and none is before",
    "the process ends",
)
def start() -> None:
    """Change the modules that have been imported, and from now on those that are."""
    sys.meta_path.insert(0, _Finder())
    for name in _after:
        if name in sys.modules:
            _change(sys.modules[name])


class _Finder(MetaPathFinder):
    """Finds what the other finders find, and changes it when it is executed."""

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
    _change(module)


def _change(module: ModuleType) -> None:
    for name, replace in _after.get(module.__name__, ()):
        *owners, attribute = name.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, attribute, replace(getattr(owner, attribute, getattr(builtins, attribute, None))))
