"""The time of each part of a training step, measured now."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import get_trainer

from recbole_dsl.optim.fused import make_fast
from recbole_dsl.sparse.modules import sparse_weights

# the most steps, and, of slow ones, as many as begin within these seconds, but a few
_STEPS, _FEW, _SECONDS = 12, 3, 10.0


@dataclass(frozen=True)
class StepParts:
    """Medians of the times of a few steps, in milliseconds.

    Attributes:
        loader: the batch, with its negative samples.
        forward: the loss.
        backward: the gradients.
        optimizer: the step of the optimizer.
    """

    loader: float
    forward: float
    backward: float
    optimizer: float


def measure_step(config: Config, model: AbstractRecommender, train_data: Any) -> StepParts | None:
    """The times of a few steps, which train ``model``; None if its trainer does not use RecBole's own step."""
    if get_trainer(config["MODEL_TYPE"], config["model"]) is not Trainer:
        return None
    optimizer = _optimizer(config, model)
    model.train()
    measured: list[list[float]] = []
    batches = iter(train_data)
    began = perf_counter()
    while len(measured) < _STEPS and (len(measured) < _FEW or perf_counter() - began < _SECONDS):
        parts: list[float] = []
        try:
            batch = _timed(parts, config, partial(next, batches))
        except StopIteration:
            break
        batch = batch.to(config["device"])
        optimizer.zero_grad()
        losses = _timed(parts, config, partial(model.calculate_loss, batch))
        loss: Any = sum(losses) if isinstance(losses, tuple) else losses
        _timed(parts, config, loss.backward)
        _timed(parts, config, optimizer.step)
        measured.append(parts)
    # the first steps allocate what later ones use again
    used = measured[2:] or measured
    return StepParts(*(1000 * median(times) for times in zip(*used))) if used else None


def _timed(parts: list[float], config: Config, do: Callable[[], Any]) -> Any:
    began = perf_counter()
    result = do()
    if torch.device(config["device"]).type == "cuda":
        torch.cuda.synchronize()
    parts.append(perf_counter() - began)
    return result


def _optimizer(config: Config, model: AbstractRecommender) -> torch.optim.Optimizer:
    """The optimizer that the trainer would make; a trainer itself would open logs and folders."""
    needed = ("learner", "learning_rate", "weight_decay")
    stand_in = SimpleNamespace(model=model, config=config, **{name: config[name] for name in needed})
    optimizer = Trainer._build_optimizer(stand_in)
    make_fast(optimizer)
    if isinstance(optimizer, torch.optim.SparseAdam):
        for weight in sparse_weights(model).values():
            weight.reader.sparse_gradient = True
    return optimizer
