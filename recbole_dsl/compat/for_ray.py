"""What RecBole needs from Ray, and how to do without it."""

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, around_import
from recbole_dsl.errors import DSLError


def report(metrics: Mapping[str, Any]) -> None:
    """Report ``metrics`` to the Ray Tune trial that runs this, if one does.

    Ray 2.7 and later take them as one dict, earlier releases as keyword arguments.
    """
    ray = sys.modules.get("ray")
    # a trial is run by Ray: where nobody has imported and started it, there is none
    if ray is None or not ray.is_initialized():
        return
    tune = importlib.import_module("ray.tune")
    if "metrics" in inspect.signature(tune.report).parameters:
        tune.report(dict(metrics))
    else:
        tune.report(**metrics)


class LazyTune(ModuleType):
    """``ray.tune``, imported when it is used, with the ``report`` of which RecBole knows."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(importlib.import_module("ray.tune"), name)
        except ImportError as error:
            reason = " ".join(str(error).split())
            raise DSLError(f'ray.tune does not import ({reason}): pip install -U "ray[tune]"') from error

    @staticmethod
    def report(**metrics: Any) -> None:
        report(metrics)


_tune = LazyTune("ray.tune")


@around_import("recbole.quick_start.quick_start")
@contextmanager
def optional_ray() -> Iterator[None]:
    """RecBole's quick start imports Ray, whoever tunes or not, and an old Ray fails with new packages."""
    for name in ("recbole.config", "recbole.data", "recbole.data.transform", "recbole.utils"):
        # nothing but the quick start is to see the stand-in
        importlib.import_module(name)
    if "ray" in sys.modules:
        yield
        return
    stand_in = ModuleType("ray")
    stand_in.tune = _tune
    sys.modules["ray"] = stand_in
    try:
        yield
    finally:
        if sys.modules.get("ray") is stand_in:
            del sys.modules["ray"]


@after_import("recbole.quick_start.quick_start")
def report_as_dict(module: ModuleType) -> None:
    """Ray 2.7 takes the metrics as one dict, and outside a trial there is nobody to report to."""
    module.tune = _tune
