"""Train, tune and load in one call, like ``recbole.quick_start``."""

import ast
import importlib
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from logging import getLogger
from multiprocessing.queues import SimpleQueue
from typing import Any

import psutil
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_environment, init_seed, set_color

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.compat.for_ray import report
from recbole_dsl.config import command_line_options
from recbole_dsl.data.checks import check_dataset
from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.data.loading import RunData, load_data
from recbole_dsl.data.rows import FileRows
from recbole_dsl.distributed.agreement import is_first, is_parallel
from recbole_dsl.distributed.launching import launch, refuse_in_import
from recbole_dsl.distributed.process_group import leave, told_to_others, torchrun_options
from recbole_dsl.errors import quieten, refusal
from recbole_dsl.files import require_writable
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.options.checks import check_processes
from recbole_dsl.options.process_options import (
    gpus_for,
    options_of_process,
    refuse_different_runs,
    refuse_in_several,
    time_limit,
)
from recbole_dsl.options.recbole_models import is_of_recbole
from recbole_dsl.options.run_options import OF_A_PROCESS
from recbole_dsl.patching import Patch
from recbole_dsl.sparse.deferred import make_the_rest
from recbole_dsl.training.configs import build_config, config_without_data, run_config, trainer_of
from recbole_dsl.training.console import say, say_end, say_start
from recbole_dsl.training.log import console_log, run_log
from recbole_dsl.training.model_building import make_model, sparse_model
from recbole_dsl.training.model_state import restore_model, save_other_parameters
from recbole_dsl.training.run_files import from_here
from recbole_dsl.training.trainer import DSLMixin
from recbole_dsl.training.warm_start import has_nothing_new, warm_start
from recbole_dsl.turns import training, turn

_CPU = Patch("psutil", "cpu_percent", "RecBole watches the processor for a second in which nothing is done")
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

    Takes what ``recbole.quick_start.run_recbole`` takes. Every RecBole option and every option of `DSLConfig` may
    be in ``config_file_list`` or ``config_dict``; with ``verbose`` the console shows all that the log file has,
    and with ``report`` the page of the run is written. The command line is not read, as it may be another
    program's: `command_line_options` is for a script whose options it has.

    Args:
        model: model name; None if an option says it. So with ``dataset``.
        config_file_list: list of YAML files.
        config_dict: options that rank above the files.
        saved: whether to save the best model, and to test it rather than the last.
        queue: for several processes, gets the result of the first.

    Returns:
        What ``run_recbole`` returns: best_valid_score, valid_score_bigger, best_valid_result and test_result. And
        ``model_file``, the absolute path of the best epoch's file, or None if none was saved; and ``cost``, the
        `Cost` of the model, or None if nothing was trained.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """
    with training(_named(model, config_dict)), told_to_others(), warnings.catch_warnings():
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
    refuse_in_import()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # say once, before any process starts, what is wrong for all
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
    work = partial(run_recbole_dsl, model, dataset, config_file_list, saved=saved)
    return launch(work, (), options, time_limit(config.final_config_dict))


def objective_function(
    config_dict: Mapping[str, Any] | None = None,
    config_file_list: Sequence[str] | None = None,
    saved: bool = True,
) -> dict[str, Any]:
    """The objective for RecBole's ``HyperTuning`` and Ray Tune, like RecBole's own."""
    with training(_named(None, config_dict)):
        config = build_config(None, None, config_file_list, config_dict)
        with prepare_trial(config, saved) as (trainer, data):
            best = trainer.fit(data.train, data.valid, verbose=False, saved=saved)
            test_result = trainer.evaluate(data.test, load_best_model=saved)
    report(test_result or {})
    return {"model": config["model"], **_result(config, best, test_result)}


@contextmanager
def prepare_trial(
    config: Config, saved: bool = True, file: FileRows | None = None
) -> Iterator[tuple[DSLMixin, RunData]]:
    """The trainer and the data of one trial of a search, and its log until the end of the context.

    Args:
        file: the one that is resumed or evaluated; the data gets its ids.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """
    with training(config["model"]), run_log(config) as begin_log:
        init_seed(config["seed"], config["reproducibility"])
        data = load_data(config, file=file)
        trainer_class, model = _before_training(config, data, file, saved)
        begin_log()
        yield trainer_class(config, model), data


@turn()
def load_data_and_model(model_file: str, data_path: str | None = None, model_class: type | None = None) -> tuple:
    """Load a saved model and the data it was trained on, like ``recbole.quick_start.load_data_and_model``.

    The model is sparse, with the topology of the saved epoch. The data gets the ids of the file, whatever its
    order is today, so that every row belongs to whom it was trained for. What the file says is data: nothing of it
    is evaluated, no pickle is read, and nothing is written.

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
    changes = {} if data_path is None else {"data_path": data_path}
    config = config_without_data(checkpoint, model_file, changes, model_class)
    check_dataset(config)
    with (
        refused_in_one_line(f"model_file={model_file}: its options cannot be used", is_of_a_file=True),
        console_log(config),
    ):
        logger = getLogger()
        init_seed(config["seed"], config["reproducibility"])
        logger.info(config)
        data = load_data(config, may_download=False, file=FileRows(checkpoint, "model_file", model_file))
        logger.info(data.dataset)
        init_seed(config["seed"], config["reproducibility"])
        model = make_model(config, data.train._dataset)
        restore_model(model, checkpoint, model_file)
        make_the_rest(model)
    return config, model.to(config["device"]), data.dataset, data.train, data.valid, data.test


def _named(model: Any, options: Mapping[str, Any] | None) -> str:
    model = model or (options or {}).get("model") or "a model"
    return model.__name__ if isinstance(model, type) else str(model)


def _train(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: Mapping[str, Any] | None,
    saved: bool,
) -> tuple[dict[str, Any], bool]:
    """The result of `run_recbole_dsl`, and whether this is the process that gives it to others."""
    config, resumed = run_config(model, dataset, config_file_list, config_dict)
    if is_parallel(config):
        refuse_in_several(config, config["budget"])
        refuse_different_runs(config, resumed)
    file = None if resumed is None else FileRows(read_checkpoint(resumed, option="resume"), "resume", resumed)
    init_seed(config["seed"], config["reproducibility"])
    with run_log(config) if is_first(config) else console_log(config) as begin_log:
        return _train_logged(config, file, saved, begin_log), config["local_rank"] == 0


def _train_logged(
    config: Config, file: FileRows | None, saved: bool, begin_log: Callable[[], str | None]
) -> dict[str, Any]:
    logger = getLogger()
    unread = _unread_words(config)
    if unread:
        logger.warning(
            f"{', '.join(unread)} on the command line: not read; "
            "config_dict=recbole_dsl.command_line_options() takes options from there"
        )
    logger.info(config)
    data = load_data(config, file=file)
    logger.info(data.dataset)
    old = config["warm_start"] if file is None else None
    if old and has_nothing_new(old, data.train._dataset, config["model"]):
        return _nothing_new(config)
    trainer_class, model = _before_training(config, data, file, saved, as_in_run_recbole=True)
    logger.info(model)
    log = begin_log()
    trainer = trainer_class(config, model)
    if file is not None:
        trainer.resume_checkpoint(file.path)
    say_start(config, trainer.sparsity, data.dataset, trainer.saved_model_file if saved else None, log)
    # from here on it counts what it is asked for below
    psutil.cpu_percent()
    best = trainer.fit(data.train, data.valid, saved=saved, show_progress=config["show_progress"])
    test_result = trainer.evaluate(data.test, load_best_model=saved, show_progress=config["show_progress"])
    share = psutil.cpu_percent()
    with _CPU.by(lambda interval: share):
        environment = get_environment(config)
    logger.info("The running environment of this training is as follows:\n" + environment.draw())
    logger.info(set_color("best valid ", "yellow") + f": {best[1]}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")
    next_command = None
    if saved and has_users_and_items(data.dataset) and is_of_recbole(config.model_class):
        path = from_here(trainer.saved_model_file)
        artifact = shlex.quote(f"{os.path.splitext(path)[0]}.rdsl")
        export = f"recbole-dsl export {shlex.quote(path)} {artifact} --values=int8"
        next_command = f"{export} && recbole-dsl recommend {artifact} --users=all --k=10"
        logger.info(set_color("to recommend", "yellow") + f": {next_command}")
    say_end(trainer.topology, trainer.cost, test_result, trainer.saved_model_file, next_command)
    if saved and config["report"] and is_first(config):
        page = f"{os.path.splitext(from_here(trainer.saved_model_file))[0]}.html"
        # it imports this file
        importlib.import_module(_REPORT).write_report([trainer.saved_model_file], page)
        logger.info(set_color("report", "yellow") + f": {page}")
        say(f"page    {page}")
    files = {"model_file": trainer.saved_model_file if saved else None, "cost": trainer.cost}
    return {**_result(config, best, test_result), **files}


def _before_training(
    config: Config, data: RunData, file: FileRows | None, saved: bool, as_in_run_recbole: bool = False
) -> tuple[type[DSLMixin], AbstractRecommender]:
    """The class of the trainer and the sparse model, once it is known that the run can be saved."""
    # the same in all processes, which need the same weights; each draws numbers of its own in training
    init_seed(config["seed"], config["reproducibility"])
    trainer_class = trainer_of(config)
    model = sparse_model(config, data, trainer_class, as_in_run_recbole)
    if config["warm_start"] and file is None:
        warm_start(config, model, data.train._dataset)
    if saved:
        save_other_parameters(model)
        if is_first(config):
            require_writable(config["checkpoint_dir"])
    return trainer_class, model


def _result(config: Config, best: tuple[float, Any], test_result: Any) -> dict[str, Any]:
    return {
        "best_valid_score": best[0],
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": best[1],
        "test_result": test_result,
    }


def _nothing_new(config: Config) -> dict[str, Any]:
    """The result of a run that trains nothing, as the file that it would start from knows all there is."""
    path = config["warm_start"]
    getLogger().warning(
        f"warm_start={path}: was trained on these very interactions, none is new: nothing is trained or written"
    )
    checkpoint = read_checkpoint(path, option="warm_start")
    best = checkpoint["best_valid_score"], checkpoint["best_valid_result"]
    return {**_result(config, best, None), "model_file": None, "cost": None}


def _unread_words(config: Config) -> list[str]:
    """Options of RecBole on the command line that the call in a script does not pass on."""
    given = config.external_config_dict
    known = config.final_config_dict.keys() - OF_A_PROCESS - {"model", "dataset"}
    words = command_line_options()
    return [f"--{name}" for name in words if name in known and not _is_read_from(words[name], given.get(name))]


def _is_read_from(word: str, value: Any) -> bool:
    """Whether RecBole may have made ``value`` of ``word``, which is not evaluated: it may be another program's."""
    try:
        return bool(word == value or ast.literal_eval(word) == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
