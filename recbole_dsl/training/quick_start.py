"""Train, tune and load in one call, like ``recbole.quick_start``."""

import importlib
import os
import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.queues import SimpleQueue
from typing import Any

from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_environment, init_seed, set_color

from recbole_dsl.compat.for_ray import report
from recbole_dsl.errors import quieten, refusal
from recbole_dsl.files import require_writable
from recbole_dsl.sparse.deferred import make_the_rest
from recbole_dsl.training.checked_config import is_of_recbole, refused_in_one_line
from recbole_dsl.training.checkpoint import read_checkpoint
from recbole_dsl.training.configs import build_config, config_of, run_config, trainer_of
from recbole_dsl.training.console import say, say_end, say_start
from recbole_dsl.training.launching import launch
from recbole_dsl.training.log import console_log, held_back_log
from recbole_dsl.training.model_building import make_model
from recbole_dsl.training.model_caches import derived_names, restore_model
from recbole_dsl.training.option_checks import check_processes
from recbole_dsl.training.other_parameters import check_other_parameters
from recbole_dsl.training.process_group import leave, told_to_others, torchrun_options
from recbole_dsl.training.process_options import (
    gpus_for,
    options_of_process,
    refuse_different_runs,
    refuse_in_several,
    time_limit,
)
from recbole_dsl.training.processes import is_distributed, is_first
from recbole_dsl.training.rows import FileRows
from recbole_dsl.training.run_data import RunData, load_data
from recbole_dsl.training.trainer import DSLMixin

_REPORT = "recbole_dsl.report.writing"
# whose warnings the user can do nothing about; those of a model of the user's own are shown
_OTHERS = r"(recbole|torch|numpy|scipy|pandas)(\.|$)"


def run_recbole_dsl(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    queue: SimpleQueue | None = None,
) -> dict[str, Any]:
    """Train a RecBole model sparse from scratch, validate, stop early, save and test.

    Takes what ``recbole.quick_start.run_recbole`` takes and returns what it returns. Every RecBole option
    and every option of `DSLConfig` may be in ``config_file_list``, ``config_dict`` or on the command line; with
    ``verbose`` the console shows all that the log file has, and with ``report`` the page of the run is written.

    Args:
        model: model name; None if an option says it. So with ``dataset``.
        config_file_list: list of YAML files.
        config_dict: options that rank above the files.
        saved: whether to save the best model, and to test it rather than the last.
        queue: for several processes, gets the result of the first.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """
    with told_to_others(), warnings.catch_warnings():
        quieten(_OTHERS)
        result, is_to_tell = _train(model, dataset, config_file_list, options_of_process(config_dict), saved)
        leave()
    if is_to_tell and queue is not None:
        queue.put(result)
    return result


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: Sequence[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str = "5678",
    group_offset: int = 0,
) -> dict[str, Any] | None:
    """`run_recbole_dsl` in ``nproc`` processes, on CPUs or GPUs, like ``recbole.quick_start.run``.

    Several launches train one model if each says the same ``world_size``, and the place of the one with
    ``group_offset`` 0 as ``ip`` and ``port``. Under torchrun, which starts the processes, these are left out.

    Returns:
        The result of the first process of this launch.

    Raises:
        DSLError: before anything starts, if an option is wrong or the model is for one process; later, with the
            number of the process, if one is lost or ends with an error.
    """
    check_processes(nproc, world_size, ip, port, group_offset)
    if torchrun_options():
        if nproc != 1 or world_size != -1:
            raise refusal(
                "nproc", nproc, "left out, and world_size too, under torchrun, which starts the processes"
            )
        return run_recbole_dsl(model, dataset, config_file_list, config_dict, saved)
    if nproc == 1 and world_size == -1:
        return run_recbole_dsl(model, dataset, config_file_list, config_dict, saved)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # what is wrong for one process is wrong for all: say it once, before any starts
    config, _ = run_config(model, dataset, config_file_list, config_dict)
    refuse_in_several(config, config["budget"])
    options = {
        **(config_dict or {}),
        "world_size": nproc if world_size == -1 else world_size,
        "ip": ip,
        "port": port,
        "nproc": nproc,
        "offset": group_offset,
        **gpus_for(config, nproc, visible),
    }
    arguments = (model, dataset, config_file_list, saved)
    return launch(_run_one_of_many, arguments, options, time_limit(config.final_config_dict))


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """The objective for RecBole's ``HyperTuning`` and Ray Tune, like RecBole's own."""
    config = build_config(None, None, config_file_list, config_dict)
    trainer, data = prepare_trial(config, saved)
    best_valid_score, best_valid_result = trainer.fit(data.train, data.valid, verbose=False, saved=saved)
    test_result = trainer.evaluate(data.test, load_best_model=saved)
    report(test_result or {})
    return {
        "model": config["model"],
        "best_valid_score": best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best_valid_result,
        "test_result": test_result,
    }


def prepare_trial(config: Config, saved: bool = True, file: FileRows | None = None) -> tuple[DSLMixin, RunData]:
    """The trainer and the data of one trial of a search, whatever the trials before it in this process were.

    Args:
        file: what the trainer is to go on from, or to evaluate: the data gets its ids.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """
    init_seed(config["seed"], config["reproducibility"])
    with held_back_log(config, replace_handlers=True):
        data = load_data(config, file=file)
        init_seed(config["seed"], config["reproducibility"])
        trainer_class = trainer_of(config)
        model = _sparse_model(config, data, trainer_class)
        if saved:
            check_other_parameters(model, derived_names(model))
            require_writable(config["checkpoint_dir"])
    return trainer_class(config, model), data


def load_data_and_model(model_file: str, data_path: str | None = None, model_class: type | None = None) -> tuple:
    """Load a saved model and the data it was trained on, like ``recbole.quick_start.load_data_and_model``.

    The model is sparse, with the topology of the saved epoch. The data gets the ids of the file, in whatever order
    it is today, so that every weight is of whom it was trained for. What the file says is data: nothing of it is
    evaluated, no pickle is read, and nothing is written.

    Args:
        data_path: where the folder of the dataset is, if it has moved since; as the option of that name.
        model_class: the model's class, if it is not one of RecBole's.

    Returns:
        (config, model, dataset, train_data, valid_data, test_data)

    Raises:
        DSLError: if the file is not a whole checkpoint of this project, does not fit, its data is missing, or has
            tokens that the file does not know.
    """
    checkpoint = read_checkpoint(model_file)
    config = config_of(checkpoint, model_file, {} if data_path is None else {"data_path": data_path}, model_class)
    with (
        refused_in_one_line(f"model_file={model_file}: its options cannot be used"),
        console_log(config) as logger,
    ):
        init_seed(config["seed"], config["reproducibility"])
        logger.info(config)
        data = load_data(config, may_download=False, file=FileRows(checkpoint, "model_file", model_file))
        logger.info(data.dataset)
        init_seed(config["seed"], config["reproducibility"])
        model = make_model(config, data.train._dataset)
        restore_model(model, checkpoint, model_file)
        make_the_rest(model)
    return config, model.to(config["device"]), data.dataset, data.train, data.valid, data.test


def _how_to_recommend(model_file: str) -> str:
    artifact = shlex.quote(f"{os.path.splitext(model_file)[0]}.rdsl")
    export = f"recbole-dsl export {shlex.quote(model_file)} {artifact} --values=int8"
    return f"{export} && recbole-dsl recommend {artifact} --users=all --k=10"


def _run_one_of_many(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    saved: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    return run_recbole_dsl(model, dataset, config_file_list, options, saved)


def _train(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: Mapping[str, Any] | None,
    saved: bool,
) -> tuple[dict[str, Any], bool]:
    """The result of `run_recbole_dsl`, and whether this is the process that gives it to others."""
    config, resumed = run_config(model, dataset, config_file_list, config_dict)
    if is_distributed(config):
        refuse_in_several(config, config["budget"])
        refuse_different_runs(config, resumed)
    file = None if resumed is None else FileRows(read_checkpoint(resumed, option="resume"), "resume", resumed)
    init_seed(config["seed"], config["reproducibility"])
    is_brief = not config["verbose"]
    with held_back_log(config, is_brief=is_brief) if is_first(config) else console_log(config) as logger:
        logger.info(sys.argv)
        logger.info(config)
        data = load_data(config, file=file)
        logger.info(data.dataset)
        # the same in all processes, which need the same weights; each draws numbers of its own in training
        init_seed(config["seed"], config["reproducibility"])
        trainer_class = trainer_of(config)
        model = _sparse_model(config, data, trainer_class)
        if saved:
            check_other_parameters(model, derived_names(model))
            if is_first(config):
                require_writable(config["checkpoint_dir"])
        logger.info(model)
    trainer = trainer_class(config, model)
    if resumed is not None:
        trainer.resume_checkpoint(resumed)
    say_start(trainer, data, saved)
    best_valid_score, best_valid_result = trainer.fit(
        data.train, data.valid, saved=saved, show_progress=config["show_progress"]
    )
    test_result = trainer.evaluate(data.test, load_best_model=saved, show_progress=config["show_progress"])
    environment = get_environment(config)
    logger.info("The running environment of this training is as follows:\n" + environment.draw())
    logger.info(set_color("best valid ", "yellow") + f": {best_valid_result}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")
    next_command = None
    if saved and is_of_recbole(config.model_class):
        next_command = _how_to_recommend(trainer.saved_model_file)
        logger.info(set_color("to recommend", "yellow") + f": {next_command}")
    say_end(trainer, test_result, next_command)
    if saved and config["report"] and is_first(config):
        page = f"{os.path.splitext(trainer.saved_model_file)[0]}.html"
        # it loads runs by what is in this file
        importlib.import_module(_REPORT).write_report([trainer.saved_model_file], page)
        logger.info(set_color("report", "yellow") + f": {page}")
        say(f"page    {page}")
    result = {
        "best_valid_score": best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best_valid_result,
        "test_result": test_result,
    }
    return result, config["local_rank"] == 0


def _sparse_model(config: Config, data: RunData, trainer_class: type[DSLMixin]) -> AbstractRecommender:
    """The model of ``config``, sparse from the start: a table may be larger than the memory."""
    model = make_model(config, data.train._dataset)
    trainer_class.prepare(config, model)
    return model.to(config["device"])
