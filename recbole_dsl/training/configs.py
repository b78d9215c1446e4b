"""The Config of a run: from the user's options, from a checkpoint, or from both if the run is resumed."""

import os
from collections.abc import Container, Mapping, Sequence
from logging import getLogger
from typing import Any

from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_model, get_trainer

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.codec import plain
from recbole_dsl.compat.option_places import without_places
from recbole_dsl.data.checks import check_dataset
from recbole_dsl.errors import DSLError
from recbole_dsl.options.checked_config import CheckedConfig, refused_in_one_line
from recbole_dsl.options.recbole_models import refuse_without_gradients, refuse_without_package
from recbole_dsl.options.run_options import resolve_options
from recbole_dsl.options.stored_options import StoredConfig, given_options
from recbole_dsl.training.run_files import last_file, last_files
from recbole_dsl.training.trainer import DSLMixin, dsl_trainer


def build_config(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
) -> Config:
    """RecBole's Config, with every option checked, and every file and column that it needs found.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    config = CheckedConfig(model, dataset, config_file_list, config_dict)
    refuse_without_gradients(config["model"], config["MODEL_TYPE"])
    refuse_without_package(config["model"])
    resolve_options(config, trainer_of(config).default_options)
    if config["pre_model_path"] and config["train_stage"]:
        read_checkpoint(config["pre_model_path"], model=config["model"], option="pre_model_path")
    check_dataset(config)
    return config


def run_config(
    model: str | type | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: Mapping[str, Any] | None,
) -> tuple[Config, str | None]:
    """The Config of a run, and the file that it is resumed from, if the option ``resume`` asks for that.

    ``resume=FILE`` takes all options but those of `MAY_CHANGE` from the file. ``resume=True`` takes the newest
    last state in ``checkpoint_dir`` of the same model and dataset; if there is none, a new run begins.

    Raises:
        DSLError: as `build_config`, or if the file is not of such a run.
    """
    options = dict(config_dict or {})
    resume = options.pop("resume", None)
    if resume in (None, False):
        return build_config(model, dataset, config_file_list, options), None
    given = given_options(config_file_list, options)
    model = given.pop("model", None) if model is None else model
    dataset = given.pop("dataset", None) if dataset is None else dataset
    given = {name: value for name, value in given.items() if name not in ("model", "dataset", "resume")}
    if resume is not True:
        # the last state of the run, if the user named its best epoch
        last = last_file(str(resume))
        return _resumed(last if os.path.isfile(last) else str(resume), model, dataset, given)
    config = build_config(model, dataset, config_file_list, options)
    for file in last_files(config):
        if read_checkpoint(file, option="resume")["dataset"] == config["dataset"]:
            return _resumed(file, model, dataset, given)
    getLogger().warning(f"nothing to resume in {config['checkpoint_dir']}: a new run begins")
    return config, None


# what may change when a run is resumed: how long it is, where its data and files are, and how it is shown
MAY_CHANGE = frozenset(
    "epochs stopping_step data_path data_cache checkpoint_dir save_last verbose show_progress state worker gpu_id "
    "use_gpu eval_batch_size warm_start save_dataset save_dataloaders dataset_save_path dataloaders_save_path "
    "log_wandb report wandb_project local_rank "
    "world_size nproc ip port offset group_offset process_timeout".split()
)


def config_without_data(
    checkpoint: Mapping[str, Any],
    path: str,
    changes: Mapping[str, Any],
    model_class: type | None = None,
    may_change: Container[str] | None = None,
) -> Config:
    """The Config of the run of ``checkpoint``, read from ``path``; nothing that the file says is evaluated.

    Args:
        changes: options that rank above the file's.
        model_class: the model's class, if it is not one of RecBole's.
        may_change: which of ``changes`` may differ from the file's, or None for all.

    Raises:
        DSLError: if the options are wrong, or differ where they must not. Whether the data is there is not seen.
    """
    if model_class is None:
        model_class = _class_of(checkpoint["model"], path)
    elif model_class.__name__ != checkpoint["model"]:
        raise DSLError(f"model_class={model_class.__name__}: must be {checkpoint['model']}, the model of {path}")
    stored = without_places(checkpoint["config"], path)
    with refused_in_one_line(f"model_file={path}: its options cannot be used", is_of_a_file=True):
        config = stored_config(model_class, checkpoint["dataset"], {**stored, **changes})
        before = config if may_change is None else stored_config(model_class, checkpoint["dataset"], stored)
    for name in changes:
        if may_change is not None and name not in may_change and not _is_same(config[name], before[name]):
            raise DSLError(f"{name}={config[name]}: must be {before[name]}, which {path} was trained with")
    return config


def stored_config(model: str | type | None, dataset: str | None, options: Mapping[str, Any]) -> Config:
    """The Config of ``options``, checked but for the data; nothing of them is evaluated.

    Args:
        model: name or class of the model; None if ``options`` says it. So with ``dataset``.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    config = StoredConfig(model, dataset, config_dict=options)
    config.__class__ = Config
    refuse_without_gradients(config["model"], config["MODEL_TYPE"])
    refuse_without_package(config["model"])
    resolve_options(config, trainer_of(config).default_options)
    return config


def trainer_of(config: Config) -> type[DSLMixin]:
    """The trainer class that RecBole has for the model of ``config``, with Dynamic Sparse Learning."""
    return dsl_trainer(get_trainer(config["MODEL_TYPE"], config["model"]))


def _is_same(value: Any, other: Any) -> bool:
    try:
        return plain(value) == plain(other)
    except TypeError:
        return str(value) == str(other)


def _resumed(
    file: str, model: str | type | None, dataset: str | None, given: Mapping[str, Any]
) -> tuple[Config, str]:
    checkpoint = read_checkpoint(file, option="resume")
    own_class = model if isinstance(model, type) else None
    for option, value in (("model", own_class.__name__ if own_class else model), ("dataset", dataset)):
        if value is not None and value != checkpoint[option]:
            raise DSLError(f"{option}={value}: must be {checkpoint[option]}, as in {file}")
    changes = {**given, "checkpoint_dir": os.path.dirname(file) or os.curdir}
    config = config_without_data(checkpoint, file, changes, own_class, may_change=MAY_CHANGE)
    check_dataset(config)
    return config, file


def _class_of(name: str, path: str) -> type:
    try:
        found = get_model(name)
    except (ValueError, ImportError) as error:
        raise DSLError(
            f"model_file={path}: holds {name}, which is not a RecBole model; give its class as model_class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, AbstractRecommender)):
        raise DSLError(f"model_file={path}: holds {name}, which is not a RecBole model")
    return found
