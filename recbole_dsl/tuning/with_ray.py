"""A search by Ray Tune: trials side by side, on this machine or on a Ray cluster."""

import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from recbole_dsl.compat.for_ray import report, run_classes, state_folder
from recbole_dsl.errors import DSLError, described, one_line, refusal, shown
from recbole_dsl.patching import changes, variable
from recbole_dsl.tuning.objective import tune_objective
from recbole_dsl.tuning.search_files import SearchFolder
from recbole_dsl.tuning.settings import Search
from recbole_dsl.tuning.trial import FAILED, FINISHED, STOPPED, WORST, Trial

# the folder of Ray's own files in that of the search
_NAME = "ray"
# the only parameter of Ray's search space: its values are whole trials
_TRIAL = "trial"
_METRIC = "best_valid_score"
_NO_SIGINT_HANDLER = variable("TUNE_DISABLE_SIGINT_HANDLER", "Ctrl-C ends a search as it ends any other command")


def search_with_ray(search: Search, folder: SearchFolder, on_trial: Callable[[Trial], None]) -> None:
    """Search. A trial that ends is in the table of ``folder`` at once, and one that was begun is resumed.

    Args:
        on_trial: called with each trial that ends.

    Raises:
        DSLError: if Ray is not installed or not at the address, or has too few resources for one trial.
    """
    with _started(search.settings.address) as tune:
        resources = {"cpu": search.settings.trial_cpus, "gpu": _gpus(search)}
        _refuse_too_large(resources)
        folder.begin()
        trainable = tune.with_resources(_objective, resources)
        place = folder.file(_NAME)
        if tune.Tuner.can_restore(place):
            tuner = tune.Tuner.restore(place, trainable, resume_errored=True)
        else:
            tuner = _tuner(tune, trainable, search, folder)
        with _told_of_trials(folder, on_trial), _NO_SIGINT_HANDLER.by("1"):
            tuner.fit()


def _objective(config: Mapping[str, Any]) -> None:
    trial = config[_TRIAL]
    try:
        tune_objective(trial["options"])
    except Exception as error:
        # the same options would fail again, and Ray would try them max_failures times
        worst = -WORST if trial["bigger"] else WORST
        report({_METRIC: worst, "error": described(error), "epoch": -1, "is_last": True})


def _tuner(tune: ModuleType, trainable: Any, search: Search, folder: SearchFolder) -> Any:
    run_config, failure_config, checkpoint_config = run_classes()
    trials = [
        {"number": number, "drawn": draw, "options": {**search.options, **draw}, "bigger": search.bigger}
        for number, draw in enumerate(search.draws, start=1)
    ]
    return tune.Tuner(
        trainable,
        param_space={_TRIAL: tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            metric=_METRIC,
            mode="max" if search.bigger else "min",
            scheduler=_asha(search) if search.settings.scheduler == "asha" else None,
            trial_dirname_creator=_folder_name,
        ),
        run_config=run_config(
            name=_NAME,
            storage_path=folder.path,
            failure_config=failure_config(max_failures=search.settings.max_failures),
            # the last one has the best epoch too; the one before is needed until Ray has noted the last
            checkpoint_config=checkpoint_config(num_to_keep=2),
            callbacks=[_listener(tune)],
            verbose=0,
        ),
    )


def _asha(search: Search) -> Any:
    schedulers = importlib.import_module("ray.tune.schedulers")
    # trials are compared after so many evaluations, then after three times as many, and so on
    grace = max(1, search.evaluations // 27)
    return schedulers.ASHAScheduler(max_t=search.evaluations, grace_period=grace, reduction_factor=3)


def _folder_name(trial: Any) -> str:
    return str(trial.config[_TRIAL]["number"])


@dataclass
class _RunningSearch:
    """A search that runs. Callbacks hold none, as Ray pickles them with all that they hold."""

    folder: SearchFolder
    on_trial: Callable[[Trial], None]
    trials: list[Any] = field(default_factory=list)


_running: list[_RunningSearch] = []


@contextmanager
def _told_of_trials(folder: SearchFolder, on_trial: Callable[[Trial], None]) -> Iterator[None]:
    search = _RunningSearch(folder, on_trial)
    _running.append(search)
    try:
        yield
    finally:
        _running.remove(search)
        if search.trials:
            folder.write_trials(_rows(search))


def _listener(tune: ModuleType) -> Any:
    class Listener(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _tell(trials, trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _tell(trials, trial)

    return Listener()


def _tell(trials: list[Any], trial: Any) -> None:
    for search in _running:
        search.trials = trials
        search.folder.write_trials(_rows(search))
        search.on_trial(_row(trial, search.folder))


def _rows(search: _RunningSearch) -> list[Trial]:
    return [_row(trial, search.folder) for trial in search.trials if trial.status in ("TERMINATED", "ERROR")]


def _row(trial: Any, folder: SearchFolder) -> Trial:
    drawn, result, state = trial.config[_TRIAL], trial.last_result or {}, state_folder(trial)
    number, values = drawn["number"], dict(drawn["drawn"])
    error = result.get("error")
    if error is None and (trial.status == "ERROR" or state is None):
        error = f"its worker was killed, or failed, {trial.num_failures} times"
    if error is not None:
        return Trial(number, FAILED, values, epochs=result.get("epoch", -1) + 1, error=error)
    file = os.path.relpath(os.path.join(state, result["model_file"]), folder.path).replace(os.sep, "/")
    return Trial(
        number,
        FINISHED if result["is_last"] else STOPPED,
        values,
        score=result[_METRIC],
        valid=result["best_valid_result"],
        epochs=result["epoch"] + 1,
        file=file,
    )


@contextmanager
@changes("signal.SIGTERM", "ray.init sets a handler of its own, in whose place that of the command is put back")
def _started(address: str | None) -> Iterator[ModuleType]:
    """``ray.tune``, with Ray running; if it is started here, it ends with the search."""
    try:
        ray = importlib.import_module("ray")
        tune = importlib.import_module("ray.tune")
    except ImportError as error:
        reason = one_line(str(error))
        raise DSLError(f'engine=ray: needs Ray Tune ({reason}): pip install "ray[tune]"') from error
    if ray.is_initialized():
        yield tune
        return
    handler = signal.getsignal(signal.SIGTERM)
    own = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError, AssertionError) as error:
        raise DSLError(f"address={address}: must be that of a Ray that runs: {shown(error)}") from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        yield tune
    finally:
        ray.shutdown()


def _gpus(search: Search) -> float:
    if search.settings.trial_gpus is not None:
        return search.settings.trial_gpus
    ray = importlib.import_module("ray")
    return 1.0 if search.options.get("use_gpu", True) and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def _refuse_too_large(resources: Mapping[str, float]) -> None:
    """Refuse resources that Ray does not have; it would wait for them for ever."""
    there = importlib.import_module("ray").cluster_resources()
    for name, wanted in resources.items():
        most = there.get(name.upper(), 0)
        if wanted > most:
            raise refusal(f"trial_{name}s", wanted, f"at most {most:g}, which is all that Ray has")
