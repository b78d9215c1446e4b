"""A search by RecBole's HyperTuning: one trial after the other, in this process."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from recbole.trainer import HyperTuning
from recbole.trainer.hyper_tuning import exhaustive_search

from recbole_dsl.errors import described
from recbole_dsl.files import require_writable, write_text
from recbole_dsl.patching import variable
from recbole_dsl.tuning.parameters import Parameter
from recbole_dsl.tuning.search_files import SearchFolder, is_free
from recbole_dsl.tuning.settings import Search
from recbole_dsl.tuning.trial import FAILED, FINISHED, WORST, Trial, train_trial, trial_config

_SEED = variable("HYPEROPT_FMIN_SEED", "hyperopt looks here for a seed when RecBole gives none")


def search_with_recbole(search: Search, folder: SearchFolder, on_trial: Callable[[Trial], None]) -> None:
    """Search. A trial that ends is in the table of ``folder`` before the next one begins.

    Trials that are in the table are not trained again; the search draws them in the same order.

    Args:
        on_trial: called with each trial that was trained.
    """
    # a failed trial is tried again
    trials = {trial.trial: trial for trial in folder.read_trials() if trial.status != FAILED}
    known = {_key(trial.options): trial for trial in trials.values()}

    tuner = HyperTuning(
        # never called: hyperopt gets ours below
        lambda *_: None,
        params_dict=_space(search.parameters),
        algo=search.algo,
        max_evals=search.most,
        early_stop=search.settings.early_stop or sys.maxsize,
    )
    # which RecBole imports when it is needed, too
    from hyperopt import STATUS_OK, fmin

    folder.begin()

    def objective(drawn: Mapping[str, Any]) -> dict[str, Any]:
        values = _values(search.parameters, drawn)
        trial = known.get(_key(values))
        if trial is None:
            number = next(number for number in range(1, len(trials) + 2) if number not in trials)
            trial = _train(search, folder, number, values)
            trials[number] = known[_key(values)] = trial
            folder.write_trials(trials.values())
            on_trial(trial)
        worst = -WORST if search.bigger else WORST
        score = worst if trial.score is None else trial.score
        return {"loss": -score if search.bigger else score, "status": STATUS_OK}

    if search.algo == "exhaustive":
        # RecBole draws until it finds a new combination, and gives up after 1,000 draws, too few for many of them
        tuner.algo = partial(exhaustive_search, nbMaxSucessiveFailures=1000 + 50 * int(tuner.max_evals))
        tuner.max_evals = min(int(tuner.max_evals), search.most)
    with _SEED.by(str(search.seed)):
        # as `tuner.run`, but that prints on stdout, where the result of the command is
        fmin(
            objective,
            tuner.space,
            algo=tuner.algo,
            max_evals=tuner.max_evals,
            early_stop_fn=tuner.early_stop_fn,
            show_progressbar=False,
        )


class _Choice:
    """A candidate, hidden from hyperopt, which turns lists into tuples and dicts into parts of its space."""

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def _space(parameters: Sequence[Parameter]) -> dict[str, dict[str, Any]]:
    space: dict[str, dict[str, Any]] = {}
    for parameter in parameters:
        values = [_Choice(v) for v in parameter.values] if parameter.is_choice else list(parameter.values)
        space.setdefault(parameter.kind, {})[parameter.name] = values
    return space


def _values(parameters: Sequence[Parameter], drawn: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for parameter in parameters:
        value = drawn[parameter.name]
        values[parameter.name] = value.value if isinstance(value, _Choice) else parameter.value(float(value))
    return values


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _train(search: Search, folder: SearchFolder, number: int, values: dict[str, Any]) -> Trial:
    content = json.dumps(values) + "\n"
    place = folder.trial_folder(number)
    for other in count(2):
        options_file = os.path.join(place, "options.json")
        if os.path.isfile(options_file) and _text(options_file) == content:
            break
        if is_free(place):
            require_writable(place, "output")
            write_text(options_file, content, "output")
            break
        # it has files of a trial with other options, or of something else
        place = folder.trial_folder(f"{number}-{other}")
    try:
        done = train_trial(trial_config({**search.options, **values}, place))
    except Exception as error:
        # a learning rate with which the loss is NaN ends its trial, not the search
        return Trial(number, FAILED, values, error=described(error))
    done["file"] = f"trials/{os.path.basename(place)}/{done['file']}"
    return Trial(number, FINISHED, values, **done)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
