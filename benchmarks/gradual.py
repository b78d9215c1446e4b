"""Gradual magnitude pruning of a dense model while it trains (Zhu & Gupta 2017), the mask simulated."""

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_dsl import DSLTrainer

_BEGIN, _END, _PRUNINGS = 0.1, 0.5, 40


class GradualPruningTrainer(DSLTrainer):
    """Trains every weight, and holds more and more of them at zero: density falls from 1 to that of the Config.

    It falls by the cubic schedule between a tenth and half of the training, in 40 steps, each tensor alike; the
    rest of the training fine-tunes. Until the density is reached no epoch counts as the best one, nor towards an
    early stop.

    Args:
        steps_per_epoch: optimizer steps of an epoch.
    """

    def __init__(self, config: Config, model: AbstractRecommender, steps_per_epoch: int):
        self._density = config["density"]
        config["density"] = 1.0
        super().__init__(config, model)
        total = config["epochs"] * steps_per_epoch
        self._first, self._last = int(_BEGIN * total), max(1, int(_END * total))
        self._every = max(1, (self._last - self._first) // _PRUNINGS)
        self._steps = 0
        self._masks: dict[nn.Parameter, Tensor] = {}
        self.optimizer.register_step_post_hook(lambda *_: self._after_step())

    @torch.no_grad()
    def _after_step(self) -> None:
        self._steps += 1
        is_due = self._first <= self._steps < self._last and (self._steps - self._first) % self._every == 0
        if is_due or self._steps == self._last:
            left = 1 - min(1.0, (self._steps - self._first) / (self._last - self._first))
            self._prune(self._density + (1 - self._density) * left**3)
        for values, mask in self._masks.items():
            values.mul_(mask)

    def _prune(self, density: float) -> None:
        for weight in self.sparsity.weights.values():
            n = round(density * weight.numel)
            largest = weight.values.abs().topk(n, sorted=False).indices
            self._masks[weight.values] = torch.zeros_like(weight.values).index_fill_(0, largest, 1)

    def _valid_epoch(self, valid_data, show_progress=False):
        if self._steps < self._last:
            # rises from one evaluation to the next, and is below any score
            return self._steps / self._last - 2, {}
        return super()._valid_epoch(valid_data, show_progress=show_progress)
