"""What RecBole needs from PyTorch: anomaly detection as it was, files that load since 2.6, workers that start."""

import functools
import importlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from multiprocessing.context import get_spawning_popen
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, around_import, replaced
from recbole_dsl.compat.pickle_protocol import as_protocol_2
from recbole_dsl.compat.releases import release

_SINE = "recbole.model.sequential_recommender.sine"
_KINDS = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)
# classes of models that are not RecBole's own, by the name under which a file knows them
_own_models: dict[str, type] = {}


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


class SavedConfig:
    """RecBole's ``Config`` as a file has it, which becomes one when its attributes are there.

    A ``Config`` itself is not safe to load: it evaluates the strings that it is made of.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        import yaml
        from recbole.config import Config

        if state.get("yaml_loader") == "yaml.loader.FullLoader":
            state["yaml_loader"] = yaml.FullLoader
        state["model_class"] = _model_class(state.get("model_class"))
        vars(self).update(state)
        self.__class__ = Config


@after_import("recbole.config.configurator")
def weights_only_config(module: ModuleType) -> None:
    """Since PyTorch 2.6, ``torch.load`` makes only what is declared safe; RecBole's files hold its Config.

    Declared are names: what a file makes of them neither evaluates nor imports anything but RecBole's own modules.
    The classes of models and the loader of YAML are taken as names, which `SavedConfig` resolves.
    """
    import numpy as np
    import torch
    from recbole.utils import enum_type
    from scipy.sparse import csc_matrix, csr_matrix, lil_matrix

    names = ["yaml.loader.FullLoader", *_recbole_models()]
    kinds = [kind for kind in vars(enum_type).values() if isinstance(kind, type) and issubclass(kind, Enum)]
    multiarray = np._core.multiarray if release("numpy") >= (2, 0) else np.core.multiarray
    numbers = [np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefdUO"}, np.ndarray, np.matrix]
    for package in ("numpy.core", "numpy._core"):
        numbers += [
            (getattr(multiarray, name), f"{package}.multiarray.{name}") for name in ("scalar", "_reconstruct")
        ]
    torch.serialization.add_safe_globals(
        [
            (SavedConfig, "recbole.config.configurator.Config"),
            SavedConfig,
            *((name, name) for name in names),
            *kinds,
            *numbers,
            *(csc_matrix, csr_matrix, lil_matrix),
        ]
    )
    find = module.Config._get_model_and_dataset

    @functools.wraps(find)
    def find_and_declare(self: Any, *args: Any) -> tuple:
        found = find(self, *args)
        model_class = found[1]
        name = f"{model_class.__module__}.{model_class.__qualname__}"
        if name not in names:
            _own_models[name] = model_class
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


def _recbole_models() -> list[str]:
    """The names of RecBole's model classes, found as RecBole finds them, without importing any."""
    import recbole

    root = os.path.dirname(recbole.__file__)
    models = [file.removesuffix(".yaml") for file in os.listdir(os.path.join(root, "properties", "model"))]
    return [
        f"recbole.model.{kind}.{model.lower()}.{model}"
        for kind in _KINDS
        for model in models
        if os.path.isfile(os.path.join(root, "model", kind, f"{model.lower()}.py"))
    ]


def _model_class(name: Any) -> Any:
    """The class that a file calls ``name``; what is not the name of a model is left as it is."""
    if name in _own_models:
        return _own_models[name]
    if not isinstance(name, str) or name not in _recbole_models():
        return name
    module, _, model = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), model)
    except ImportError:
        return name
