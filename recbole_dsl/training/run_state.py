"""The state of a run as a checkpoint holds it, and a run that goes on from one."""

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint, weights_problem
from recbole_dsl.checkpoint.plain_data import plain, plain_entries
from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from recbole_dsl.checkpoint.state_checks import (
    is_same_kind,
    loadable,
    optimizers_problem,
    random_state_problem,
    topology_state_problem,
)
from recbole_dsl.data.rows import rows_of
from recbole_dsl.data.trained_on import trained_on
from recbole_dsl.errors import DSLError
from recbole_dsl.options.run_options import options_to_save
from recbole_dsl.sparse.modules import sparse_shapes, sparse_weights
from recbole_dsl.training.model_caches import derived_names, restore_model
from recbole_dsl.training.other_parameters import read_other_parameters, save_other_parameters
from recbole_dsl.training.run_files import best_file, is_last

if TYPE_CHECKING:
    from recbole_dsl.training.trainer import DSLMixin


def run_state(trainer: "DSLMixin", epoch: int, whole: bool) -> dict[str, Any]:
    """What a checkpoint holds of ``trainer`` after ``epoch``, as tensors and plain data.

    Args:
        whole: whether a run that goes on from it is to be the same to the bit: the gradients summed for the next
            topology update are then part of it.
    """
    model, config = trainer.model, trainer.config
    data = trainer.train_data._dataset if trainer.train_data is not None else None
    earlier = trainer.resumed.trained_on if trainer.resumed is not None else None
    result = trainer.best_valid_result if whole else trainer.last_valid_result or trainer.best_valid_result
    return {
        "run": trainer.run_name,
        "model": config["model"],
        "dataset": config["dataset"],
        "config": options_to_save(config),
        "dsl": trainer.dsl_config.to_dict(),
        "epoch": epoch,
        "cur_step": trainer.cur_step,
        "best_valid_score": float(trainer.best_valid_score),
        # RecBole saves before it notes the result that made it save
        "best_valid_result": plain(result),
        "state_dict": dict(model.state_dict()),
        "shapes": sparse_shapes(model),
        "other_parameter": save_other_parameters(model, derived_names(model)),
        "attributes": trainer.attributes.changed(),
        "learners": [type(optimizer).__name__ for optimizer in trainer.optimizers],
        "optimizers": [plain(optimizer.state_dict()) for optimizer in trainer.optimizers],
        "schedulers": {name: plain_entries(one.state_dict()) for name, one in _schedulers(trainer).items()},
        "topology": trainer.topology.state_dict(with_window=whole),
        "random_state": random_state(loader_generators(trainer.train_data)),
        "record": trainer.record.to_dict(),
        "rows": {} if data is None else rows_of(data),
        "trained_on": {} if data is None else trained_on(data, earlier),
    }


def restore_run(trainer: "DSLMixin", path: str) -> dict[str, Any]:
    """Give ``trainer`` the state in ``path``; all of it is checked before any of it is used.

    Returns:
        the checkpoint.

    Raises:
        DSLError: if the file is not a whole checkpoint of such a run; nothing is changed then.
    """
    checkpoint = read_checkpoint(path, trainer.device, trainer.config["model"])
    kinds = [type(optimizer).__name__ for optimizer in trainer.optimizers]
    if checkpoint["learners"] != kinds:
        learners = ",".join(checkpoint["learners"])
        raise DSLError(f"learner={','.join(kinds)}: must be {learners}, which {path} was trained with")
    problem = _problem(trainer, checkpoint)
    if problem:
        raise DSLError(f"model_file={path}: does not fit the model: {problem}")
    read_other_parameters(trainer.model, checkpoint["other_parameter"], derived_names(trainer.model), path)
    best = best_file(path)
    if checkpoint["best_valid_result"] is not None and is_last(path) and not os.path.isfile(best):
        raise DSLError(f"model_file={path}: {best}, the best epoch of that run, must be beside it")
    restore_model(trainer.model, checkpoint, path)
    trainer.attributes.restore(checkpoint["attributes"])
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizers"]):
        optimizer.load_state_dict(loadable(optimizer, state))
    for name, scheduler in _schedulers(trainer).items():
        scheduler.load_state_dict({**scheduler.state_dict(), **checkpoint["schedulers"].get(name, {})})
    trainer.topology.load_state_dict(checkpoint["topology"])
    return checkpoint


def loader_generators(train_data: Any) -> list[torch.Generator]:
    """Those that shuffle ``train_data``: a knowledge-aware model's loader is made of two."""
    loaders = [getattr(train_data, name, None) for name in ("general_dataloader", "kg_dataloader")]
    generators = [getattr(loader, "generator", None) for loader in (train_data, *loaders)]
    return [generator for generator in generators if generator is not None]


def restore_random(state: dict[str, Any], train_data: Any) -> None:
    """Put the random state of a checkpoint back, once the data that it shuffles is there."""
    restore_random_state(state, loader_generators(train_data))


def _problem(trainer: "DSLMixin", checkpoint: dict[str, Any]) -> str | None:
    state_dict = checkpoint["state_dict"]
    weights = sparse_weights(trainer.model)
    sizes = {
        id(weight.values): len(state_dict[f"{name}.values"])
        for name, weight in weights.items()
        if f"{name}.values" in state_dict
    }
    checks = (
        lambda: weights_problem(trainer.model, state_dict),
        lambda: trainer.attributes.problem(checkpoint["attributes"]),
        lambda: optimizers_problem(trainer.optimizers, checkpoint["learners"], checkpoint["optimizers"], sizes),
        lambda: _schedulers_problem(trainer, checkpoint["schedulers"]),
        lambda: topology_state_problem(trainer.topology, checkpoint["topology"]),
        lambda: random_state_problem(checkpoint["random_state"]),
    )
    return next((problem for problem in (check() for check in checks) if problem), None)


def _schedulers(trainer: "DSLMixin") -> dict[str, LRScheduler]:
    """The learning-rate schedulers of a trainer of the user's own, by attribute."""
    return {name: v for name, v in vars(trainer).items() if isinstance(v, (LRScheduler, ReduceLROnPlateau))}


def _schedulers_problem(trainer: "DSLMixin", saved: dict[str, dict[str, Any]]) -> str | None:
    own = _schedulers(trainer)
    for name, state in saved.items():
        if name not in own:
            return f"scheduler {name!r:.80} is not one of the trainer"
        mine = own[name].state_dict()
        for key, value in state.items():
            is_best = isinstance(value, float) and isinstance(mine.get(key), float) and value == value
            if not is_best and (key not in mine or not is_same_kind(value, mine[key])):
                return f"scheduler {name}: {key!r:.80} is {value!r:.40}"
    return None
