"""What RecBole 1.2.1 does wrong on any packages."""

import functools
from logging import LoggerAdapter
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import


@after_import("recbole.evaluator.collector")
def numbers_and_counts_of_items(module: ModuleType) -> None:
    """RecBole calls ``cpu()`` on all that a metric needs, and the number and counts of items have none.

    ItemCoverage, GiniIndex, AveragePopularity and TailPercentage need those.
    """
    get = module.Collector.get_data_struct

    @functools.wraps(get)
    def get_data_struct(self: Any) -> Any:
        collected = self.data_struct._data_dict
        others = {name: value for name, value in collected.items() if not isinstance(value, module.torch.Tensor)}
        for name in others:
            del collected[name]
        struct = get(self)
        for data in (self.data_struct, struct):
            data._data_dict.update(others)
        return struct

    module.Collector.get_data_struct = get_data_struct


@after_import("recbole.model.general_recommender.ract", "recbole.model.general_recommender.dgcf")
def arguments_for_which_a_message_has_no_place(module: ModuleType) -> None:
    """RaCT and DGCF log with arguments that their messages do not name, and logging prints a traceback then."""

    class Joined(LoggerAdapter):
        def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
            super().log(level, "%s", " ".join(map(str, (message, *args))), **kwargs)

    def keep(self: Any, logger: Any) -> None:
        vars(self)["logger"] = Joined(logger, {})

    name = "RaCT" if hasattr(module, "RaCT") else "DGCF"
    getattr(module, name).logger = property(lambda self: vars(self)["logger"], keep)
