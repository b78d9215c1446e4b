"""The objective of a trial of Ray Tune."""

import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_dsl.compat.for_ray import report_state, reported_state, trial_gpus, trial_name
from recbole_dsl.errors import DSLError
from recbole_dsl.options.stored_options import given_options
from recbole_dsl.training.trainer import DSLMixin
from recbole_dsl.tuning.parameters import as_option, plain_options
from recbole_dsl.tuning.trial import resumed_trial, trial_config


def tune_objective(config_dict: Mapping[str, Any], config_file_list: Sequence[str] | None = None) -> None:
    """Train a model of RecBole sparse as a trial of Ray Tune, which may stop it, kill it and let it go on.

    After each evaluation on the validation data it reports every metric by its name; ``valid_score``, the value of
    ``valid_metric``, and ``best_valid_score``, the best so far; ``best_valid_result``, the metrics of the best
    epoch; ``epoch``, from 0; ``is_last``, whether no evaluation follows; and ``model_file``, the file of the best
    epoch. With them it reports a checkpoint: the last state and the file of the best epoch, as the command writes
    them. If Ray gives it a checkpoint it resumes from that, and the result is the same to the bit. Its files are
    in the folder of the trial.

    Relative paths in the options are relative to where Ray was started.

    Args:
        config_dict: the options, model and dataset among them. They are data: no string is evaluated.
        config_file_list: list of YAML files; ``config_dict`` ranks above them.

    Raises:
        DSLError: if an option is wrong, or no trial runs this.
    """
    name = trial_name()
    if name is None:
        raise DSLError("tune_objective: must be run by Ray Tune, as the trainable of a ray.tune.Tuner")
    options = _options(config_dict, config_file_list)
    # Ray gives back what an earlier worker has reported, but not its folder
    folder = os.path.abspath(os.path.join("saved", f"{name}-{secrets.token_hex(3)}"))
    os.makedirs(folder)
    with reported_state() as reported:
        if reported is not None:
            for file in glob.glob(os.path.join(glob.escape(reported), "*.*")):
                shutil.copy(file, folder)
    with resumed_trial(trial_config({**options, **_device()}, folder)) as (trainer, data):

        def report(epoch: int, score: float) -> None:
            trainer.keep_last_state(epoch)
            _report(trainer, epoch, score, trainer.last_valid_result)

        begin = trainer.start_epoch
        trainer.fit(data.train, data.valid, verbose=False, callback_fn=report)
    if trainer.start_epoch == begin > 0 and trainer.last_valid_result is None:
        # it was killed after its last report; Ray wants one from each worker
        _report(trainer, begin - 1, trainer.best_valid_score, trainer.best_valid_result)


def _report(trainer: DSLMixin, epoch: int, score: float, result: Mapping[str, float]) -> None:
    is_last = epoch + 1 + trainer.eval_step > trainer.epochs or trainer.cur_step > trainer.stopping_step
    metrics = {
        **{name: float(value) for name, value in result.items()},
        "valid_score": float(score),
        "best_valid_score": float(trainer.best_valid_score),
        "best_valid_result": {name: float(value) for name, value in (trainer.best_valid_result or {}).items()},
        "epoch": epoch,
        "is_last": bool(is_last),
        "model_file": os.path.basename(trainer.saved_model_file),
    }
    with tempfile.TemporaryDirectory() as folder:
        for file in (trainer.saved_model_file, trainer.last_model_file):
            # there is no best epoch if every score is NaN
            if os.path.isfile(file):
                shutil.copy(file, folder)
        report_state(metrics, folder)


def _options(config_dict: Mapping[str, Any], config_file_list: Sequence[str] | None) -> dict[str, Any]:
    options = given_options([_at_start(file) for file in config_file_list or ()], None)
    # a model may be given by its class
    classes = {name: value for name, value in config_dict.items() if isinstance(value, type)}
    given = plain_options({name: value for name, value in config_dict.items() if name not in classes})
    options |= {name: as_option(value) for name, value in given.items()} | classes
    return {
        name: _at_start(value) if name.endswith("_path") and isinstance(value, str) else value
        for name, value in options.items()
    }


def _device() -> dict[str, Any]:
    """The options for the GPUs that Ray has given this trial; without them RecBole takes the machine's first."""
    if not trial_gpus():
        return {"gpu_id": "", "use_gpu": False}
    return {"gpu_id": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}


def _at_start(path: str) -> str:
    # Ray changes to the folder of the trial, and keeps the one before in this variable
    return os.path.abspath(os.path.join(os.environ.get("TUNE_ORIG_WORKING_DIR", os.curdir), path))
