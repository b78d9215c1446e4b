"""RecBole without scikit-learn, until something of it is called."""

import builtins
import functools
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from recbole_dsl.compat.on_import import around_import
from recbole_dsl.environment import import_compiled

_USERS = (
    "recbole.evaluator.metrics",
    "recbole.model.general_recommender.nceplrec",
    "recbole.model.general_recommender.slimelastic",
)


@around_import("recbole.evaluator.metrics", until="RecBole imports it where it calls it")
@around_import("recbole.model.general_recommender.nceplrec", until="RecBole imports it where it calls it")
@around_import("recbole.model.general_recommender.slimelastic", until="RecBole imports it where it calls it")
@contextmanager
def later() -> Iterator[None]:
    """Three metrics and two models without gradients need scikit-learn, whose import takes a second and 60 MB."""
    # of a module that has begun to be executed, Python has set the builtins
    begun = [sys.modules[name] for name in _USERS if name in sys.modules]
    new = [module for module in begun if "__builtins__" not in vars(module)]
    for module in new:
        module.__builtins__ = {**vars(builtins), "__import__": functools.partial(_import, module)}
    yield
    for module in new:
        module.__builtins__ = builtins


def _import(
    module: ModuleType,
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Sequence[str] = (),
    level: int = 0,
) -> Any:
    """Python's ``__import__`` for ``module``, except that names of scikit-learn are `_deferred`."""
    if level or not name.startswith("sklearn."):
        return builtins.__import__(name, globals, locals, fromlist, level)
    return SimpleNamespace(**{wanted: _deferred(module, name, wanted) for wanted in fromlist})


def _deferred(module: ModuleType, home: str, name: str) -> Any:
    """Stands for ``name`` of the module ``home``; when it is called, ``module`` gets all that it has imported."""

    def call(*args: Any, **kwargs: Any) -> Any:
        import_compiled("scikit-learn")
        for alias, value in list(vars(module).items()):
            if hasattr(value, "deferred"):
                place, wanted = value.deferred
                setattr(module, alias, getattr(importlib.import_module(place), wanted))
        return getattr(importlib.import_module(home), name)(*args, **kwargs)

    call.deferred = home, name
    return call
