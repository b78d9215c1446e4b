"""Train, tune and load in one call, like ``recbole.quick_start``."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing.queues import SimpleQueue
from typing import Any, Optional

import torch.distributed as dist
import yaml
from ray import tune
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_environment, get_model, get_trainer, init_seed, set_color

from recbole_dsl.config import nearest
from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.deferred import deferred_tables, make_the_rest
from recbole_dsl.training.checkpoint import read_checkpoint
from recbole_dsl.training.log import held_back_log
from recbole_dsl.training.model_caches import derived_names, restore_model
from recbole_dsl.training.other_parameters import check_other_parameters
from recbole_dsl.training.register import trainable_models
from recbole_dsl.training.run_options import refuse_without_gradients, refuse_without_package, resolve_options
from recbole_dsl.training.trainer import dsl_trainer


def run_recbole_dsl(
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[Sequence[str]] = None,
    config_dict: Optional[Mapping[str, Any]] = None,
    saved: bool = True,
    queue: Optional[SimpleQueue] = None,
) -> dict[str, Any]:
    """Train a RecBole model sparse from scratch, validate, stop early, save and test.

    Takes what ``recbole.quick_start.run_recbole`` takes and returns what it returns. Every RecBole option
    and every option of `DSLConfig` may be in ``config_file_list``, ``config_dict`` or on the command line.

    Args:
        model: model name; None if an option says it. So with ``dataset``.
        config_file_list: list of YAML files.
        config_dict: options that rank above the files.
        saved: whether to save the best model, and to test it rather than the last.
        queue: for several processes, gets the result of the first.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """
    config = build_config(model, dataset, config_file_list, config_dict)
    init_seed(config["seed"], config["reproducibility"])
    with held_back_log(config) as logger:
        logger.info(sys.argv)
        logger.info(config)
        dataset = load_dataset(config)
        logger.info(dataset)
        train_data, valid_data, test_data = data_preparation(config, dataset)
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        trainer_class = _trainer_class(config)
        model = _sparse_model(config, train_data, trainer_class)
        if saved:
            check_other_parameters(model, derived_names(model))
        logger.info(model)
    trainer = trainer_class(config, model)
    best_valid_score, best_valid_result = trainer.fit(
        train_data, valid_data, saved=saved, show_progress=config["show_progress"]
    )
    test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=config["show_progress"])
    environment = get_environment(config)
    logger.info("The running environment of this training is as follows:\n" + environment.draw())
    logger.info(set_color("best valid ", "yellow") + f": {best_valid_result}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")
    result = {
        "best_valid_score": best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best_valid_result,
        "test_result": test_result,
    }
    if not config["single_spec"]:
        dist.destroy_process_group()
    if config["local_rank"] == 0 and queue is not None:
        queue.put(result)
    return result


def run(
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[Sequence[str]] = None,
    config_dict: Optional[Mapping[str, Any]] = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
) -> Optional[dict[str, Any]]:
    """`run_recbole_dsl` on ``nproc`` GPUs, like ``recbole.quick_start.run``."""
    if nproc == 1 and world_size <= 0:
        return run_recbole_dsl(model, dataset, config_file_list, config_dict, saved)
    import torch.multiprocessing as mp

    # what is wrong for one process is wrong for all: say it once, before any starts
    build_config(model, dataset, config_file_list, dict(config_dict or {}))
    queue = mp.get_context("spawn").SimpleQueue()
    options = {
        **(config_dict or {}),
        "world_size": nproc if world_size == -1 else world_size,
        "ip": ip,
        "port": port,
        "nproc": nproc,
        "offset": group_offset,
    }
    arguments = (model, dataset, config_file_list, options, saved, queue)
    mp.spawn(_run_one_of_many, args=arguments, nprocs=nproc, join=True)
    return None if queue.empty() else queue.get()


def objective_function(
    config_dict: Optional[Mapping[str, Any]] = None,
    config_file_list: Optional[Sequence[str]] = None,
    saved: bool = True,
) -> dict[str, Any]:
    """The objective for RecBole's ``HyperTuning`` and Ray Tune, like RecBole's own."""
    config = build_config(None, None, config_file_list, config_dict)
    init_seed(config["seed"], config["reproducibility"])
    with held_back_log(config, replace_handlers=True):
        dataset = load_dataset(config)
        train_data, valid_data, test_data = data_preparation(config, dataset)
        init_seed(config["seed"], config["reproducibility"])
        trainer_class = _trainer_class(config)
        model = _sparse_model(config, train_data, trainer_class)
        if saved:
            check_other_parameters(model, derived_names(model))
    trainer = trainer_class(config, model)
    best_valid_score, best_valid_result = trainer.fit(train_data, valid_data, verbose=False, saved=saved)
    test_result = trainer.evaluate(test_data, load_best_model=saved)
    tune.report(**test_result)
    return {
        "model": config["model"],
        "best_valid_score": best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best_valid_result,
        "test_result": test_result,
    }


def load_data_and_model(model_file: str) -> tuple:
    """Load a saved model and the data it was trained on, like ``recbole.quick_start.load_data_and_model``.

    The model is sparse, with the topology of the saved epoch.

    Returns:
        (config, model, dataset, train_data, valid_data, test_data)

    Raises:
        DSLError: if the file is not a whole checkpoint of this project, or its data is missing.
    """
    checkpoint = read_checkpoint(model_file)
    with _without_command_line():
        options = checkpoint["config"]
        if options.get("pre_model_path"):
            # the constructor wants to load what this model began as; that file need not exist any more
            options = {**options, "pre_model_path": model_file}
        config = build_config(checkpoint["model"], checkpoint["dataset"], None, options)
    init_seed(config["seed"], config["reproducibility"])
    with held_back_log(config) as logger:
        logger.info(config)
        dataset = load_dataset(config)
        logger.info(dataset)
        train_data, valid_data, test_data = data_preparation(config, dataset)
        init_seed(config["seed"], config["reproducibility"])
        with _tables_deferred(config):
            model = get_model(config["model"])(config, train_data._dataset)
        restore_model(model, checkpoint, model_file)
        make_the_rest(model)
    return config, model.to(config["device"]), dataset, train_data, valid_data, test_data


def build_config(
    model: Optional[str] = None,
    dataset: Optional[str] = None,
    config_file_list: Optional[Sequence[str]] = None,
    config_dict: Optional[Mapping[str, Any]] = None,
) -> Config:
    """RecBole's Config, with every option of ours checked and every file that it needs found.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    for file in config_file_list or ():
        if not os.path.isfile(file):
            raise DSLError(f"config_files={file}: must be an existing YAML file")
    try:
        config = Config(model, dataset, list(config_file_list or ()) or None, dict(config_dict or {}))
    except yaml.YAMLError as error:
        files = " ".join(config_file_list)
        raise DSLError(f"config_files={files}: must be YAML: {' '.join(str(error).split())}") from error
    except (
        AttributeError,
        ImportError,
        KeyError,
        NotImplementedError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        name = model or (config_dict or {}).get("model")
        raise DSLError(_in_one_line(error, name)) from error
    refuse_without_gradients(config["model"], config["MODEL_TYPE"])
    refuse_without_package(config["model"])
    resolve_options(config, _trainer_class(config).default_options)
    if config["pre_model_path"] and config["train_stage"]:
        read_checkpoint(config["pre_model_path"], model=config["model"], option="pre_model_path")
    _check_dataset(config)
    return config


def load_dataset(config: Config) -> Dataset:
    """RecBole's dataset, downloaded where RecBole knows an address and there is none yet.

    Raises:
        DSLError: if it cannot be downloaded; nothing is left of the attempt.
    """
    path = config["data_path"]
    if os.path.isdir(path):
        return create_dataset(config)
    missing = [path]
    while not os.path.isdir(os.path.dirname(os.path.abspath(missing[-1]))):
        missing.append(os.path.dirname(os.path.abspath(missing[-1])))
    try:
        return create_dataset(config)
    except (OSError, ValueError, SystemExit, RuntimeError) as error:
        if os.path.isfile(os.path.join(path, f"{config['dataset']}.inter")):
            # RecBole waits for other processes after a download, and fails when it has none
            return create_dataset(config)
        for folder in missing:
            if os.path.isdir(folder) and not os.listdir(folder):
                os.rmdir(folder)
        raise DSLError(f"dataset={config['dataset']}: not in {path} and not to be downloaded") from error


@contextmanager
def _without_command_line() -> Iterator[None]:
    """Keep Config from reading the options of the script that loads a model as those of the model."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments


def _run_one_of_many(rank, model, dataset, config_file_list, options, saved, queue) -> None:
    run_recbole_dsl(model, dataset, config_file_list, {**options, "local_rank": rank}, saved, queue)


def _sparse_model(config: Config, train_data: AbstractDataLoader, trainer_class: type) -> AbstractRecommender:
    """The model of ``config``, sparse from the start: a table may be larger than the memory."""
    with _tables_deferred(config):
        model = get_model(config["model"])(config, train_data._dataset)
    if not config["single_spec"]:
        # the processes compare their weights, which not every backend can do elsewhere
        model = model.to(config["device"])
    trainer_class.prepare(config, model)
    return model.to(config["device"])


def _tables_deferred(config: Config) -> AbstractContextManager:
    # at density 1 every entry is to have the value that RecBole would have drawn for it
    return deferred_tables() if config["density"] < 1 and config["single_spec"] else nullcontext()


def _trainer_class(config: Config) -> type:
    return dsl_trainer(get_trainer(config["MODEL_TYPE"], config["model"]))


def _check_dataset(config: Config) -> None:
    name, path = config["dataset"], config["data_path"]
    if config["dataset_save_path"]:
        return
    if not os.path.isdir(path):
        import recbole

        listing = os.path.join(os.path.dirname(recbole.__file__), "properties", "dataset", "url.yaml")
        with open(listing, encoding="utf-8") as file:
            if name not in yaml.safe_load(file):
                raise DSLError(f"dataset={name}: must be a folder of atomic files at {path}")
        return
    parts = config["benchmark_filename"]
    for file in [f"{name}.{part}.inter" for part in parts] if parts else [f"{name}.inter"]:
        if not os.path.isfile(os.path.join(path, file)):
            raise DSLError(f"dataset={name}: {file} must be in {path}")


def _in_one_line(error: Exception, model: Optional[str]) -> str:
    refuse_without_gradients(model)
    message = " ".join(str(error.args[0] if error.args else error).split())
    # RecBole looks an unknown model up among its optional packages
    if isinstance(model, str) and (
        isinstance(error, (AttributeError, ImportError)) or "not the name of an existing model" in message
    ):
        match = nearest(model, trainable_models())
        allowed = f"did you mean {match}?" if match else "must be the name of a RecBole model trained by gradients"
        return f"model={model}: {allowed}"
    return message or type(error).__name__
