"""A file of RecBole is data: what it says is neither evaluated nor a place to read pickles from or to write to."""

import functools
import importlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, replaced
from recbole_dsl.compat.option_places import without_places
from recbole_dsl.errors import DSLError, refusal, shown

_KINDS = (
    "general_recommender",
    "context_aware_recommender",
    "sequential_recommender",
    "knowledge_aware_recommender",
    "exlib_recommender",
)
# classes of models that are not RecBole's own, by the name under which a file knows them
own_models: dict[str, type] = {}
# of a Config: that its options come from a file
_OF_A_FILE = "_of_a_file"
_ATTRIBUTES = (
    *("parameters", "model", "dataset", "file_config_dict", "variable_config_dict", "cmd_config_dict"),
    *("external_config_dict", "internal_config_dict", "final_config_dict"),
)
_read_now: ContextVar[Any] = ContextVar("_read_now", default=None)


class SavedConfig:
    """RecBole's ``Config`` as a file has it, which becomes one when its attributes are there.

    A ``Config`` itself is not safe to load: it evaluates the strings that it is made of. Of what the file says
    RecBole's own attributes are taken, and of the options those that name no place but that of the data.
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


@contextmanager
def reading(file: Any) -> Iterator[None]:
    """Within it, ``file`` is the one that a Config is read from."""
    token = _read_now.set(file)
    try:
        yield
    finally:
        _read_now.reset(token)


@after_import("recbole.data.utils", "recbole.data", "recbole.quick_start.quick_start")
def no_pickles_that_a_file_names(module: ModuleType) -> None:
    """RecBole unpickles data sets and loaders that lie where the options say, or where they lie by default."""
    if not hasattr(module.create_dataset, "__wrapped__"):
        module.create_dataset = _without_pickles(module.create_dataset)
    if hasattr(module, "load_split_dataloaders") and not hasattr(module.load_split_dataloaders, "__wrapped__"):
        module.load_split_dataloaders = _without_pickles(module.load_split_dataloaders)


@after_import("recbole.data.dataset.dataset")
def no_download_that_a_file_asks_for(module: ModuleType) -> None:
    """RecBole downloads a known data set to where the options say."""
    download = module.Dataset._download

    @functools.wraps(download)
    def refuse_or_download(self: Any) -> None:
        if hasattr(self.config, _OF_A_FILE):
            raise DSLError(f"dataset={self.dataset_name}: must be a folder of atomic files at {self.dataset_path}")
        download(self)

    module.Dataset._download = refuse_or_download


@after_import("recbole.model.abstract_recommender")
def no_attributes_but_those_of_the_model(module: ModuleType) -> None:
    """RecBole sets every attribute that the ``other_parameter`` of a file names."""
    load = module.AbstractRecommender.load_other_parameter

    @functools.wraps(load)
    def load_other_parameter(self: Any, values: Any) -> None:
        for name, value in (values or {}).items():
            if name not in getattr(self, "other_parameter_name", ()) or callable(value):
                raise refusal("other_parameter", name, f"data that {type(self).__name__} lists as such")
        load(self, values)

    module.AbstractRecommender.load_other_parameter = load_other_parameter


@after_import("recbole.model.context_aware_recommender.kd_dagfm")
def teacher_by_its_name(module: ModuleType) -> None:
    """KD_DAGFM evaluates the option ``teacher``."""

    def teacher(name: str) -> type:
        found = vars(module).get(name)
        if not (isinstance(found, type) and issubclass(found, module.nn.Module)):
            own = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
            raise refusal("teacher", name, f"one of {', '.join(own)}")
        return found

    module.eval = teacher


@after_import("recbole.model.general_recommender.ldiffrec")
def embeddings_are_numbers(module: ModuleType) -> None:
    """LDiffRec lets NumPy unpickle the embeddings beside the data."""
    load = module.np.load

    def load_array(file: str, **_: Any) -> Any:
        try:
            return load(file, allow_pickle=False)
        except ValueError as error:
            raise DSLError(f"dataset: {file} must be an array of numbers as numpy.save writes it") from error

    module.np = replaced(module.np, load=load_array)


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


def _model_class(name: Any) -> Any:
    """The class that a file calls ``name``; what is not the name of a model is left as it is."""
    if name in own_models:
        return own_models[name]
    if not isinstance(name, str) or name not in recbole_models():
        return name
    module, _, model = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), model)
    except ImportError:
        return name


def _without_pickles(make: Callable) -> Callable:
    """``make``, for which there are no pickles by default if the Config is of a file."""

    @functools.wraps(make)
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
