"""What RecBole needs from NumPy 2."""

import functools
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, replaced
from recbole_dsl.compat.releases import release


@after_import("recbole.config.configurator")
def removed_names_in_config(module: ModuleType) -> None:
    """NumPy 2.0 removed float_, complex_ and unicode_, from which ``Config`` gives NumPy its names of before 1.24.

    They are given to the modules that read them instead.
    """
    if release("numpy") >= (2, 0):
        module.Config.compatibility_settings = lambda self: None


@after_import(
    "recbole.data.dataset.dataset",
    "recbole.data.interaction",
    "recbole.evaluator.metrics",
    "recbole.trainer.hyper_tuning",
)
def removed_aliases(module: ModuleType) -> None:
    """NumPy 1.24 removed the aliases of Python's types, such as ``np.float``."""
    import numpy as np

    if release("numpy") >= (2, 0):
        module.np = replaced(module.np, bool=np.bool_, float=np.float64, str=np.str_)


@after_import("recbole.evaluator.evaluator")
def plain_metrics(module: ModuleType) -> None:
    """NumPy 2.0 shows its numbers as ``np.float64(0.1)``: results hold those of Python."""
    if release("numpy") < (2, 0):
        return
    evaluate = module.Evaluator.evaluate

    @functools.wraps(evaluate)
    def evaluate_plain(self: Any, dataobject: Any) -> dict[str, float]:
        result = evaluate(self, dataobject)
        for metric, value in result.items():
            result[metric] = _plain(value)
        return result

    module.Evaluator.evaluate = evaluate_plain


@after_import("recbole.trainer.hyper_tuning")
def plain_parameters(module: ModuleType) -> None:
    """So do the parameters that ``HyperTuning`` prints."""
    if release("numpy") < (2, 0):
        return
    trial = module.HyperTuning.trial

    @functools.wraps(trial)
    def trial_plain(self: Any, params: dict[str, Any]) -> dict[str, Any]:
        return trial(self, {name: _plain(value) for name, value in params.items()})

    module.HyperTuning.trial = trial_plain


def _plain(value: Any) -> Any:
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value
