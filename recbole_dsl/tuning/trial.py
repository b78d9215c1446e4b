"""One trial of a search: a training with the options that it draws, and its result."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from recbole.config import Config

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.data.checks import check_dataset
from recbole_dsl.data.loading import RunData
from recbole_dsl.data.rows import FileRows
from recbole_dsl.errors import DSLError
from recbole_dsl.training.configs import stored_config
from recbole_dsl.training.quick_start import prepare_trial
from recbole_dsl.training.run_files import last_files
from recbole_dsl.training.trainer import DSLMixin

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
# the score of a failed trial for an engine: worse than any metric, and finite, as engines subtract scores
WORST = 1e30


@dataclass(frozen=True)
class Trial:
    """A row of the table of a search.

    Attributes:
        trial: its number, from 1, in the order in which trials are drawn.
        status: `FINISHED`; `STOPPED` early by the scheduler; or `FAILED`.
        options: the options that the search drew.
        score: the best ``valid_metric`` on the validation data; None if it failed.
        valid: every metric of that epoch on the validation data.
        epochs: how many it was trained for.
        file: the file of the best epoch, relative to the folder of the search.
        error: why it failed.
    """

    trial: int
    status: str
    options: Mapping[str, Any]
    score: float | None = None
    valid: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    file: str | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """This as plain data."""
        return asdict(self)


def best_of(trials: list[Trial], bigger: bool) -> Trial | None:
    """The trial with the best score, the first of equal ones; None if none has a finite score."""
    scored = [trial for trial in trials if trial.score is not None and math.isfinite(trial.score)]
    sign = -1 if bigger else 1
    return min(scored, key=lambda trial: (sign * trial.score, trial.trial), default=None)


def trial_config(options: Mapping[str, Any], checkpoint_dir: str) -> Config:
    """The Config of a trial with ``options``, none of which is evaluated, and its files in ``checkpoint_dir``.

    Raises:
        DSLError: naming the option, its value and what is allowed.
    """
    config = stored_config(None, None, {**options, "checkpoint_dir": checkpoint_dir})
    check_dataset(config)
    return config


def train_trial(config: Config) -> dict[str, Any]:
    """Train a trial, or resume it from the last state in its ``checkpoint_dir``.

    Returns:
        the fields score, valid, epochs and file of its `Trial`; ``file`` is relative to ``checkpoint_dir``.
    """
    with resumed_trial(config) as (trainer, data):
        evaluated = [trainer.start_epoch - 1]
        score, valid = trainer.fit(
            data.train, data.valid, verbose=False, callback_fn=lambda epoch, score: evaluated.append(epoch)
        )
    if valid is None:
        raise DSLError("valid_metric: has no result, as there are no validation data")
    return {
        "score": float(score),
        "valid": {name: float(value) for name, value in valid.items()},
        "epochs": evaluated[-1] + 1,
        "file": os.path.basename(trainer.saved_model_file),
    }


def test_trial(config: Config, file: str) -> dict[str, float]:
    """The metrics on the test data of the model in ``file``, which a trial with ``config`` has saved."""
    rows = FileRows(read_checkpoint(file, model=config["model"]), "model_file", file)
    with prepare_trial(config, file=rows) as (trainer, data):
        trainer.eval_collector.data_collect(data.train)
        result = trainer.evaluate(data.test, model_file=file)
    return {name: float(value) for name, value in (result or {}).items()}


@contextmanager
def resumed_trial(config: Config) -> Iterator[tuple[DSLMixin, RunData]]:
    """`prepare_trial`, resumed from the last state in ``checkpoint_dir`` if there is one."""
    state = next(iter(last_files(config)), None)
    file = None if state is None else FileRows(read_checkpoint(state, option="resume"), "resume", state)
    with prepare_trial(config, file=file) as (trainer, data):
        if state is not None:
            trainer.resume_checkpoint(state)
        yield trainer, data
