"""What RecBole needs from PyTorch: anomaly detection as it was, files that load since 2.6, workers that start."""

import functools
import importlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from multiprocessing.context import get_spawning_popen
from types import ModuleType
from typing import Any

from recbole_dsl.compat.harmless_files import SavedConfig, own_models, reading, recbole_models
from recbole_dsl.compat.on_import import after_import, around_import, replaced
from recbole_dsl.compat.pickle_protocol import as_protocol_2
from recbole_dsl.patching import lock

_SINE = "recbole.model.sequential_recommender.sine"


@around_import(_SINE)
@contextmanager
def anomaly_detection() -> Iterator[None]:
    """Importing any sequential model imports SINE, whose module turns anomaly detection on: leave it as it was.

    Where SINE has been imported before, it is turned off, which it is unless somebody asks for it.
    """
    import torch

    before = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(*before)


if _SINE in sys.modules:
    importlib.import_module("torch").autograd.set_detect_anomaly(False)


@after_import("recbole.config.configurator")
def weights_only_config(module: ModuleType) -> None:
    """Since PyTorch 2.6, ``torch.load`` makes only what is declared safe; RecBole's files hold its Config.

    Declared are names, and what is made of them is data: see `harmless_files` and `saved_arrays`. The classes of
    models and the loader of YAML are taken as names.
    """
    import torch
    from recbole.utils import enum_type

    # loads NumPy and SciPy
    from recbole_dsl.compat.saved_arrays import stand_ins

    names = ["yaml.loader.FullLoader", *recbole_models()]
    kinds = [kind for kind in vars(enum_type).values() if isinstance(kind, type) and issubclass(kind, Enum)]
    torch.serialization.add_safe_globals(
        [
            (SavedConfig, "recbole.config.configurator.Config"),
            *((name, name) for name in names),
            *kinds,
            *stand_ins(),
        ]
    )
    find = module.Config._get_model_and_dataset

    @functools.wraps(find)
    def find_and_declare(self: Any, *args: Any) -> tuple:
        found = find(self, *args)
        model_class = found[1]
        name = f"{model_class.__module__}.{model_class.__qualname__}"
        if name not in names:
            with lock():
                own_models[name] = model_class
                torch.serialization.add_safe_globals([(name, name)])
        return found

    module.Config._get_model_and_dataset = find_and_declare


@after_import("recbole.model.abstract_recommender")
def weights_only_modules(module: ModuleType) -> None:
    """Since PyTorch 2.6, ``torch.load`` makes no modules, nor fills a `defaultdict`.

    The modules of ``other_parameter`` are in the state_dict too.
    """
    from torch import nn

    other_parameter = module.AbstractRecommender.other_parameter

    @functools.wraps(other_parameter)
    def without_modules(self: Any) -> dict[str, Any]:
        return {
            name: dict(value) if isinstance(value, defaultdict) else value
            for name, value in other_parameter(self).items()
            if not isinstance(value, nn.Module)
        }

    module.AbstractRecommender.other_parameter = without_modules


@after_import(
    "recbole.trainer.trainer",
    "recbole.model.context_aware_recommender.kd_dagfm",
    "recbole.model.general_recommender.convncf",
    "recbole.model.general_recommender.nais",
    "recbole.model.general_recommender.neumf",
    "recbole.model.general_recommender.ract",
    "recbole.model.sequential_recommender.s3rec",
)
def weights_only_protocol(module: ModuleType) -> None:
    """Since PyTorch 2.6, ``torch.load`` reads the pickle protocol 2; RecBole saves with 4."""
    torch = module.torch

    def save(state: Any, file: Any, **options: Any) -> None:
        options.pop("pickle_protocol", None)
        torch.save(state, file, **options)

    def load(file: Any, *args: Any, **options: Any) -> Any:
        return torch.load(as_protocol_2(file), *args, **options)

    module.torch = replaced(torch, save=save, load=load)


@after_import("recbole.quick_start.quick_start", "recbole.quick_start")
def weights_only_protocol_in_quick_start(module: ModuleType) -> None:
    """The same for the file that ``load_data_and_model`` reads."""
    load = module.load_data_and_model
    if hasattr(load, "__wrapped__"):
        return

    @functools.wraps(load)
    def load_data_and_model(model_file: Any) -> tuple:
        with reading(model_file):
            return load(as_protocol_2(model_file))

    module.load_data_and_model = load_data_and_model


@after_import("recbole.data.dataloader.abstract_dataloader")
def workers_without_generators(module: ModuleType) -> None:
    """A worker gets its loader whole, and PyTorch cannot send the generator in it to one that is not forked.

    From Python 3.14 on Linux forks none. What draws the order of the lines stays in the main process.
    """

    def without_generators(self: Any) -> dict[str, Any]:
        state = vars(self).copy()
        if get_spawning_popen() is not None:
            for name in ("generator", "sampler", "batch_sampler"):
                state.pop(name, None)
        return state

    module.AbstractDataLoader.__getstate__ = without_generators
