"""What RecBole 1.2.1 does wrong with any packages, or leaves behind in PyTorch."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import LoggerAdapter
from multiprocessing.context import get_spawning_popen
from typing import Any

from recbole_dsl.compat.on_import import around_import, replaces
from recbole_dsl.patching import changes


@replaces("recbole.evaluator.collector:Collector.get_data_struct", until="RecBole moves tensors only")
def numbers_and_counts_of_items(get: Callable) -> Callable:
    """RecBole calls ``cpu()`` on all that a metric needs, and the number and the counts of items have none.

    ItemCoverage, GiniIndex, AveragePopularity and TailPercentage need those.
    """
    import torch

    def get_data_struct(self: Any) -> Any:
        collected = self.data_struct._data_dict
        others = {name: value for name, value in collected.items() if not isinstance(value, torch.Tensor)}
        for name in others:
            del collected[name]
        struct = get(self)
        for data in (self.data_struct, struct):
            data._data_dict.update(others)
        return struct

    return get_data_struct


@replaces(
    "recbole.model.general_recommender.ract:RaCT.logger",
    "recbole.model.general_recommender.dgcf:DGCF.logger",
    until="these messages have a place for their arguments",
)
def joined_messages(_: None) -> property:
    """RaCT and DGCF log arguments for which their messages have no place, and logging prints a traceback."""

    class Joined(LoggerAdapter):
        def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
            super().log(level, "%s", " ".join(map(str, (message, *args))), **kwargs)

    def keep(self: Any, logger: Any) -> None:
        vars(self)["logger"] = Joined(logger, {})

    return property(lambda self: vars(self)["logger"], keep)


@around_import("recbole.model.sequential_recommender.sine", until="SINE leaves anomaly detection alone")
@contextmanager
def anomaly_detection() -> Iterator[None]:
    """Importing any sequential model imports SINE, whose module turns on PyTorch's anomaly detection."""
    import torch

    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(*before)


@changes(
    "torch.autograd.set_detect_anomaly", "a SINE that was imported before has turned it on", "the process ends"
)
def turn_anomaly_detection_off() -> None:
    """Turn it off; it is off unless somebody asks for it."""
    importlib.import_module("torch").autograd.set_detect_anomaly(False)


if "recbole.model.sequential_recommender.sine" in sys.modules:
    turn_anomaly_detection_off()


@replaces(
    "recbole.data.dataloader.abstract_dataloader:AbstractDataLoader.__getstate__",
    until="RecBole's loaders go to workers that are not forked",
)
def workers_without_generators(_: Any) -> Callable:
    """PyTorch cannot send the generator of a loader to a worker that is not forked; Python 3.14 forks none.

    What draws the order of the interactions stays in the main process.
    """

    def without_generators(self: Any) -> dict[str, Any]:
        state = vars(self).copy()
        if get_spawning_popen() is not None:
            for name in ("generator", "sampler", "batch_sampler"):
                state.pop(name, None)
        return state

    return without_generators
