"""RecBole's own files, which PyTorch 2.6 and later refuse to load, read as data.

Nothing in a file is evaluated, and none of its options says where to read pickles or where to write.
"""

import importlib
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import replaced, replaces
from recbole_dsl.compat.option_places import without_places
from recbole_dsl.compat.pickle_protocol import as_protocol_2
from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.patching import changes, lock

_KINDS = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)
# classes of models that are not RecBole's own, by their names in a file
_own_models: dict[str, type] = {}
# the attribute of a Config whose options come from a file
_OF_A_FILE = "_of_a_file"
_ATTRIBUTES = (
    *("parameters", "model", "dataset", "file_config_dict", "variable_config_dict", "cmd_config_dict"),
    *("external_config_dict", "internal_config_dict", "final_config_dict"),
)
_read_now: ContextVar[Any] = ContextVar("_read_now", default=None)


class SavedConfig:
    """Stands for RecBole's ``Config`` while a file is read, and becomes one when it has its attributes.

    A ``Config`` itself is not safe to load: it evaluates the strings that it is made of. Only RecBole's own
    attributes are taken from the file, and no option that names a place but that of the data.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        import torch
        import yaml
        from recbole.config import Config

        made = {name: state[name] for name in _ATTRIBUTES if name in state}
        for name, value in made.items():
            if name.endswith("_dict"):
                if type(value) is not dict or not all(type(option) is str for option in value):
                    raise UnpicklingError(f"{name} is no dict of options")
                made[name] = without_places(value, _read_now.get())
        options = made["final_config_dict"]
        model, dataset = options.get("model"), options.get("dataset")
        if not isinstance(model, str) or not model.isidentifier():
            raise UnpicklingError(f"model={shown(model)} is no name of a model")
        if not isinstance(dataset, str) or os.path.basename(dataset) != dataset or dataset in ("", ".", ".."):
            raise UnpicklingError(f"dataset={shown(dataset)} is no name of a folder")
        device = state["final_config_dict"].get("device")
        is_there = isinstance(device, torch.device) and (device.type != "cuda" or torch.cuda.is_available())
        options.update(
            checkpoint_dir="saved",
            device=device if is_there else torch.device("cpu"),
            local_rank=0,
            single_spec=True,
            save_dataset=False,
            save_dataloaders=False,
            log_wandb=False,
        )
        made.update(yaml_loader=yaml.FullLoader, model_class=_model_class(state.get("model_class")))
        vars(self).update(made)
        setattr(self, _OF_A_FILE, True)
        self.__class__ = Config


def _model_class(name: Any) -> Any:
    """The class of the model that a file calls ``name``; ``name`` itself if it is none."""
    if name in _own_models:
        return _own_models[name]
    if not isinstance(name, str) or name not in recbole_models():
        return name
    module, _, model = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), model)
    except ImportError:
        return name


def recbole_models() -> list[str]:
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


@replaces(
    "recbole.config.configurator:Config._get_model_and_dataset",
    until="RecBole saves plain data, not its Config",
)
def declared_models(find: Callable) -> Callable:
    """Since PyTorch 2.6 ``torch.load`` makes only what is declared safe: declare the user's own models."""
    names = _declare_what_recbole_saves()

    def find_and_declare(self: Any, *args: Any) -> tuple:
        found = find(self, *args)
        model_class = found[1]
        name = f"{model_class.__module__}.{model_class.__qualname__}"
        if name not in names:
            _declare_own_model(name, model_class)
        return found

    return find_and_declare


@changes(
    "torch.serialization.add_safe_globals",
    "since PyTorch 2.6 torch.load makes only what is declared safe, and RecBole's files hold its Config",
    "RecBole saves plain data, not its Config",
)
def _declare_what_recbole_saves() -> list[str]:
    """The names of models, declared as names; what the other names in RecBole's files stand for is data."""
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
    return names


@changes(
    "torch.serialization.add_safe_globals",
    "the files that RecBole saves of a model of one's own name its class",
    "RecBole saves plain data, not its Config",
)
def _declare_own_model(name: str, model_class: type) -> None:
    import torch

    with lock():
        _own_models[name] = model_class
        torch.serialization.add_safe_globals([(name, name)])


@replaces(
    "recbole.model.abstract_recommender:AbstractRecommender.other_parameter", until="RecBole saves plain data"
)
def without_modules(other_parameter: Callable) -> Callable:
    """Since PyTorch 2.6 ``torch.load`` makes no modules, which are in the state_dict too, and no `defaultdict`."""
    from torch import nn

    def plain(self: Any) -> dict[str, Any]:
        return {
            name: dict(value) if isinstance(value, defaultdict) else value
            for name, value in other_parameter(self).items()
            if not isinstance(value, nn.Module)
        }

    return plain


@replaces(
    "recbole.trainer.trainer:torch",
    "recbole.model.context_aware_recommender.kd_dagfm:torch",
    "recbole.model.general_recommender.convncf:torch",
    "recbole.model.general_recommender.nais:torch",
    "recbole.model.general_recommender.neumf:torch",
    "recbole.model.general_recommender.ract:torch",
    "recbole.model.sequential_recommender.s3rec:torch",
    until="RecBole saves in pickle protocol 2",
)
def protocol_2(torch: ModuleType) -> ModuleType:
    """Since PyTorch 2.6 ``torch.load`` reads pickle protocol 2; RecBole saves with 4."""

    def save(state: Any, file: Any, **options: Any) -> None:
        options.pop("pickle_protocol", None)
        torch.save(state, file, **options)

    def load(file: Any, *args: Any, **options: Any) -> Any:
        return torch.load(as_protocol_2(file), *args, **options)

    return replaced(torch, save=save, load=load)


@replaces(
    "recbole.quick_start.quick_start:load_data_and_model",
    "recbole.quick_start:load_data_and_model",
    until="RecBole saves in pickle protocol 2",
)
def loading_as_data(load: Callable) -> Callable:
    """RecBole reads its files in protocol 4 and trusts what they say."""

    def load_data_and_model(model_file: Any) -> tuple:
        token = _read_now.set(model_file)
        try:
            return load(as_protocol_2(model_file))
        finally:
            _read_now.reset(token)

    return load_data_and_model


@replaces(
    "recbole.data.utils:create_dataset",
    "recbole.data.utils:load_split_dataloaders",
    "recbole.data:create_dataset",
    "recbole.data:load_split_dataloaders",
    "recbole.quick_start.quick_start:create_dataset",
    until="RecBole saves data sets as data",
)
def no_pickles_that_a_file_names(make: Callable) -> Callable:
    """RecBole unpickles data sets and loaders that lie where a file's options say, or in the default place."""

    def made(config: Any) -> Any:
        if not hasattr(config, _OF_A_FILE):
            return make(config)
        usual = config["checkpoint_dir"]
        config["checkpoint_dir"] = os.path.join(tempfile.gettempdir(), secrets.token_hex(16))
        try:
            return make(config)
        finally:
            config["checkpoint_dir"] = usual

    return made


@replaces("recbole.data.dataset.dataset:Dataset._download", until="RecBole asks before it downloads")
def no_download_that_a_file_asks_for(download: Callable) -> Callable:
    """RecBole downloads a known data set to where a file's options say."""

    def refuse_or_download(self: Any) -> None:
        if hasattr(self.config, _OF_A_FILE):
            raise DSLError(f"dataset={self.dataset_name}: must be a folder of atomic files at {self.dataset_path}")
        download(self)

    return refuse_or_download


@replaces(
    "recbole.model.abstract_recommender:AbstractRecommender.load_other_parameter",
    until="RecBole checks what it sets",
)
def no_attributes_but_those_of_the_model(load: Callable) -> Callable:
    """RecBole sets every attribute that the ``other_parameter`` of a file names."""

    def load_other_parameter(self: Any, values: Any) -> None:
        for name, value in (values or {}).items():
            if name not in getattr(self, "other_parameter_name", ()) or callable(value):
                raise refusal("other_parameter", name, f"data that {type(self).__name__} lists as such")
        load(self, values)

    return load_other_parameter


@replaces("recbole.model.context_aware_recommender.kd_dagfm:eval", until="KD_DAGFM looks its teacher up")
def teacher_by_its_name(_: Callable) -> Callable:
    """KD_DAGFM evaluates the option ``teacher``."""

    def teacher(name: str) -> type:
        module = importlib.import_module("recbole.model.context_aware_recommender.kd_dagfm")
        found = vars(module).get(name)
        if not (isinstance(found, type) and issubclass(found, module.nn.Module)):
            own = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
            raise refusal("teacher", name, f"one of {', '.join(own)}")
        return found

    return teacher


@replaces("recbole.model.general_recommender.ldiffrec:np", until="LDiffRec reads numbers only")
def embeddings_are_numbers(np: ModuleType) -> ModuleType:
    """LDiffRec lets NumPy unpickle the embeddings beside the data."""

    def load_array(file: str, **_: Any) -> Any:
        try:
            return np.load(file, allow_pickle=False)
        except ValueError as error:
            raise DSLError(f"dataset: {file} must be an array of numbers as numpy.save writes it") from error

    return replaced(np, load=load_array)
