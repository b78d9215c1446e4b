"""Ray Tune in each of its releases, and RecBole without it."""

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

from recbole_dsl.compat.on_import import around_import, replaces
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


def trial_name() -> str | None:
    """The id of the Ray Tune trial that runs this; None if none does."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return _context().get_trial_id()


def trial_gpus() -> float:
    """How many GPUs, or which share of one, Ray has given to the trial that runs this."""
    return _context().get_trial_resources().required_resources.get("GPU", 0)


def report_state(metrics: Mapping[str, Any], folder: str) -> None:
    """Report ``metrics`` to the trial that runs this, with the files in ``folder`` as its checkpoint."""
    tune = _session()
    tune.report(dict(metrics), checkpoint=tune.Checkpoint.from_directory(folder))


@contextmanager
def reported_state() -> Iterator[str | None]:
    """The folder of the checkpoint from which the trial that runs this is to resume; None if it begins."""
    checkpoint = _session().get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield folder


def state_folder(trial: Any) -> str | None:
    """The folder of the last checkpoint of ``trial``, one of Ray's own; None if there is none."""
    checkpoint = trial.checkpoint
    return getattr(checkpoint, "path", None) or getattr(checkpoint, "dir_or_data", None)


def run_classes() -> tuple[type, type, type]:
    """RunConfig, FailureConfig and CheckpointConfig: of ``ray.tune`` since 2.43, of ``ray.air`` before."""
    home = importlib.import_module("ray.tune")
    if not hasattr(home, "RunConfig"):
        home = importlib.import_module("ray.air")
    return home.RunConfig, home.FailureConfig, home.CheckpointConfig


def _session() -> ModuleType | SimpleNamespace:
    """The module that reports: ``ray.tune`` since 2.43, ``ray.train`` since 2.7, ``ray.air`` before."""
    for name in ("ray.tune", "ray.train"):
        module = importlib.import_module(name)
        if all(hasattr(module, part) for part in ("get_checkpoint", "Checkpoint", "report")):
            return module
    session = importlib.import_module("ray.air.session")
    checkpoint = importlib.import_module("ray.air.checkpoint").Checkpoint
    return SimpleNamespace(report=session.report, get_checkpoint=session.get_checkpoint, Checkpoint=checkpoint)


def _context() -> Any:
    """The context of the trial that runs this: ``get_context()`` since Ray 2.7, the session itself before."""
    for name in ("ray.tune", "ray.train"):
        module = importlib.import_module(name)
        if hasattr(module, "get_context"):
            return module.get_context()
    return importlib.import_module("ray.air.session")


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


@around_import("recbole.quick_start.quick_start", until="RecBole imports Ray only where it is used")
@contextmanager
def optional_ray() -> Iterator[None]:
    """RecBole's quick start imports Ray even if nobody tunes, and old releases of Ray fail with new packages."""
    for name in ("recbole.config", "recbole.data", "recbole.data.transform", "recbole.utils"):
        # only the quick start is to see the stand-in
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


@replaces("recbole.quick_start.quick_start:tune", until="RecBole runs on Ray 2.7")
def reports_as_dict(_: Any) -> LazyTune:
    """Ray 2.7 takes the metrics as one dict, and outside of a trial there is nobody to report to."""
    return _tune
