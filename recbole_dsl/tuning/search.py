"""A search over options, from a parameter file to the best trial and its result on the test data."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from recbole.config import Config

from recbole_dsl.config import nearest, unknown_option
from recbole_dsl.data.checks import check_dataset
from recbole_dsl.data.loading import load_dataset
from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.options.checked_config import check_names
from recbole_dsl.options.checks import known_options
from recbole_dsl.options.names import own_options
from recbole_dsl.options.stored_options import given_options
from recbole_dsl.training.configs import stored_config
from recbole_dsl.training.run_files import from_here, time_stamp
from recbole_dsl.tuning.candidates import check_parameters, check_trial
from recbole_dsl.tuning.parameters import Parameter, plain_options, read_parameters
from recbole_dsl.tuning.plot import plot_search
from recbole_dsl.tuning.search_files import BEST_MODEL, BEST_OPTIONS, SearchFolder
from recbole_dsl.tuning.settings import SETTINGS, Search, SearchSettings
from recbole_dsl.tuning.trial import FAILED, Trial, best_of, test_trial, trial_config

# the number of trials where it is not limited, RecBole's default
_TRIALS = 100
_COMBINATIONS = 10_000


# options that a search sets itself -> what to do instead
_NOT_GIVEN = {
    "checkpoint_dir": "left out: the files of a search are in output",
    "resume": "left out: the same command with --output=FOLDER goes on",
    **dict.fromkeys(
        ("nproc", "world_size", "ip", "port", "group_offset"), "left out: each trial is trained by one process"
    ),
}


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        folder: where its files are.
        trials: all that have ended.
        best: the one with the best score on the validation data.
        test_result: the metrics of its model on the test data.
    """

    folder: str
    trials: Sequence[Trial]
    best: Trial
    test_result: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """This as plain data, with the files of the best trial; the other trials are in the folder."""
        return {
            "folder": self.folder,
            "trials": len(self.trials),
            "best": self.best.to_dict(),
            "test_result": dict(self.test_result),
            "model_file": os.path.join(self.folder, BEST_MODEL),
            "options_file": os.path.join(self.folder, BEST_OPTIONS),
        }


def run_search(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    settings: SearchSettings,
    config_dict: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Search over the options that ``settings.params_file`` names; all others are as `run_recbole_dsl` takes them.

    The folder ``output`` holds search.json, what is searched; trials.jsonl, a `Trial` on each line, written anew
    whenever one ends; best.yaml, the options of the best trial so far, for ``--config_files``; and after the
    search best.pth, the best model, best.json, its results, also on the test data, and plot.html, if plotly is
    installed.

    Raises:
        DSLError: before anything is written if an option, a setting or any value that may be drawn is wrong; later
            if no trial could be trained.
    """
    options = _shared_options(model, dataset, config_file_list, config_dict)
    config = stored_config(None, None, options)
    _refuse_mistyped(options, config)
    check_names(config)
    parameters = read_parameters(settings.params_file)
    first = {parameter.name: parameter.candidates()[0] for parameter in parameters}
    check_parameters(parameters, config, options)
    check_trial(stored_config(None, None, {**options, **first}))
    check_dataset(config)
    search = _search(settings, parameters, options, config)
    folder = _folder(search, [settings.params_file, *(config_file_list or ())])
    if not os.path.isdir(config["data_path"]):
        # download it once, not in each of the trials that begin together
        load_dataset(config)
    best: list[Trial] = [trial for trial in [best_of(folder.read_trials(), search.bigger)] if trial]

    def ended(trial: Trial) -> None:
        _say(_line(trial, search.most, config))
        found = best_of([*best, trial], search.bigger)
        if found is trial:
            best[:] = [trial]
            folder.write_best_options(trial)

    _say(f"a search of up to {search.most} trial{'' if search.most == 1 else 's'}, in {from_here(folder.path)}")
    try:
        # each loads much
        if settings.engine == "ray":
            from recbole_dsl.tuning.with_ray import search_with_ray

            search_with_ray(search, folder, ended)
        else:
            from recbole_dsl.tuning.with_recbole import search_with_recbole

            search_with_recbole(search, folder, ended)
    except KeyboardInterrupt as interrupt:
        interrupt.__notes__ = [f"to go on: the same command with --output={folder.path}"]
        raise
    return _result(folder, options, config)


def _shared_options(
    model: str | None,
    dataset: str | None,
    config_file_list: Sequence[str] | None,
    config_dict: Mapping[str, Any] | None,
) -> dict[str, Any]:
    given = given_options(config_file_list, config_dict)
    for name, allowed in _NOT_GIVEN.items():
        if name in given:
            raise refusal(name, given[name], allowed)
    # trials of Ray begin in folders of their own
    options = plain_options(given, os.path.abspath)
    if isinstance(model, type):
        raise refusal("model", model.__name__, "the name of a model of RecBole in a search")
    options["model"] = model if model is not None else options.get("model")
    options["dataset"] = dataset if dataset is not None else options.get("dataset")
    # RecBole's default
    options.setdefault("data_path", os.path.abspath("dataset"))
    return options


def _refuse_mistyped(options: Mapping[str, Any], config: Config) -> None:
    known = {*known_options(config), *own_options(options)}
    for name in options:
        if name not in known and nearest(name, SETTINGS):
            raise unknown_option(name, SETTINGS)


def _algo(settings: SearchSettings, parameters: Sequence[Parameter]) -> str:
    intervals = [parameter.name for parameter in parameters if not parameter.is_choice]
    if settings.algo is None:
        return "exhaustive" if not intervals else "bayes" if settings.engine == "hyperopt" else "random"
    if settings.algo == "exhaustive" and intervals:
        raise refusal("algo", settings.algo, f"random or bayes with {intervals[0]}, which is no choice of values")
    return settings.algo


def _most(algo: str, parameters: Sequence[Parameter], trials: int | None) -> int:
    if algo != "exhaustive":
        return trials or _TRIALS
    size = prod(len(parameter.values) for parameter in parameters)
    if size > _COMBINATIONS:
        raise refusal(
            "algo", algo, f"random or bayes with more than {_COMBINATIONS:,} combinations, here {size:,}"
        )
    return min(size, trials or size)


def _draws(algo: str, parameters: Sequence[Parameter], most: int, seed: int) -> list[dict[str, Any]]:
    """The options of each trial, in random order, as a scheduler compares a trial with those before it."""
    random = np.random.default_rng(seed)
    names = [parameter.name for parameter in parameters]
    if algo == "exhaustive":
        every = [dict(zip(names, values)) for values in product(*(parameter.values for parameter in parameters))]
        return [every[place] for place in random.permutation(len(every))[:most].tolist()]
    drawn: dict[str, dict[str, Any]] = {}
    # of few combinations some come again
    for _ in range(20 * most):
        if len(drawn) == most:
            break
        values = {parameter.name: parameter.draw(random) for parameter in parameters}
        drawn.setdefault(repr(values), values)
    return list(drawn.values())


def _search(
    settings: SearchSettings, parameters: Sequence[Parameter], options: Mapping[str, Any], config: Config
) -> Search:
    algo = _algo(settings, parameters)
    most = _most(algo, parameters, settings.trials)
    draws = _draws(algo, parameters, most, config["seed"]) if settings.engine == "ray" else []
    evaluations = [d.get("epochs", config["epochs"]) // d.get("eval_step", config["eval_step"]) for d in draws]
    return Search(
        settings,
        parameters,
        algo,
        len(draws) or most,
        draws,
        options,
        bigger=config["valid_metric_bigger"],
        evaluations=max(evaluations, default=0),
        seed=config["seed"],
    )


def _folder(search: Search, inputs: Sequence[str | None]) -> SearchFolder:
    settings, options = search.settings, search.options
    content = {
        "format": "a search of recbole_dsl",
        "model": options["model"],
        "dataset": options["dataset"],
        "options": dict(options),
        "parameters": [parameter.to_dict() for parameter in search.parameters],
        "engine": settings.engine,
        "algo": search.algo,
    }
    if search.draws:
        content |= {"scheduler": settings.scheduler, "trials": len(search.draws)}
    name = f"{options['model']}-{options['dataset']}-{time_stamp()}"
    return SearchFolder(settings.output or os.path.join("tuned", name), content, inputs)


def _say(text: str) -> None:
    lines = textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(lines, file=sys.stderr, flush=True)


def _line(trial: Trial, total: int, config: Config) -> str:
    drawn = ", ".join(f"{name}={shown(value)}" for name, value in trial.options.items())
    if trial.status == FAILED:
        return f"trial {trial.trial} of {total} failed: {drawn}: {shown(trial.error)}"
    score = f"{config['valid_metric']} {trial.score:.4f}"
    return f"trial {trial.trial} of {total}, {trial.status}, epochs {trial.epochs}: {score}: {drawn}"


def _result(folder: SearchFolder, options: Mapping[str, Any], config: Config) -> SearchResult:
    trials = folder.read_trials()
    best = best_of(trials, config["valid_metric_bigger"])
    if best is None:
        reason = f"the first failed: {trials[0].error}" if trials else "none has ended"
        raise DSLError(f"params_file: no trial could be trained, {reason}")
    folder.write_best_options(best)
    best_config = trial_config({**options, **best.options}, folder.path)
    test_result = test_trial(best_config, folder.file(best.file))
    folder.write_best(best, test_result)
    has_plot = plot_search(options["model"], trials, folder)
    _say(_line(best, len(trials), config).replace("trial", "best: trial", 1))
    _say("test result: " + ", ".join(f"{name} {value:.4f}" for name, value in test_result.items()))
    files = ["best.yaml", "best.pth", "best.json", "trials.jsonl", *(["plot.html"] if has_plot else [])]
    _say(f"{from_here(folder.path)}: {', '.join(files)}")
    return SearchResult(folder.path, trials, best, test_result)
