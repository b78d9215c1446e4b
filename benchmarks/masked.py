"""Dynamic Sparse Learning as its authors simulate it: dense tensors, and a mask that holds weights at zero.

The reference that sparse storage is compared with; it is larger and slower than dense training. Two defects of the
published method are not repeated: here the budget is exact, and an exchanged weight starts with zero moments.
"""

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from torch import Tensor, nn

from recbole_dsl import DSLConfig
from recbole_dsl.topology.schedule import FIRST_RATIO, update_ratio


class MaskedTrainer(Trainer):
    """RecBole's Trainer over masked weights: a random start, pruning by magnitude, growing by one step's gradient.

    Takes ``density``, ``update_interval``, ``update_ratio``, ``schedule`` and ``seed`` from the Config.

    Attributes:
        masks: float, 1 where a weight is alive; one for each weight with two or more dimensions.
        total_steps: optimizer steps of the whole training, to be set before the first topology update.
    """

    def __init__(self, config: Config, model: AbstractRecommender):
        super().__init__(config, model)
        self.dsl_config = DSLConfig.build(config)
        self.total_steps = 0
        self.steps = 0
        generator = torch.Generator().manual_seed(self.dsl_config.seed)
        self.masks: dict[nn.Parameter, Tensor] = {}
        self._dense_gradients: dict[nn.Parameter, Tensor] = {}
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                mask = _random_mask(parameter, self.dsl_config.density, generator)
                self.masks[parameter] = mask
                parameter.data.mul_(mask)
        self.optimizer.register_step_pre_hook(lambda *_: self._before_step())
        self.optimizer.register_step_post_hook(lambda *_: self._after_step())

    @torch.no_grad()
    def _before_step(self) -> None:
        self.steps += 1
        is_due = self.steps % self.dsl_config.update_interval == 0 and self.steps < self.total_steps
        for parameter, mask in self.masks.items():
            if parameter.grad is None:
                continue
            if is_due:
                self._dense_gradients[parameter] = parameter.grad.clone()
            parameter.grad.mul_(mask)

    @torch.no_grad()
    def _after_step(self) -> None:
        for parameter, mask in self.masks.items():
            parameter.mul_(mask)
        for parameter, gradient in self._dense_gradients.items():
            self._exchange(parameter, gradient)
        self._dense_gradients.clear()

    def _exchange(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        options, weight, mask = self.dsl_config, parameter.view(-1), self.masks[parameter].view(-1)
        alive = mask.bool()
        n_alive = int(alive.sum())
        first = FIRST_RATIO if options.update_ratio is None else options.update_ratio
        ratio = update_ratio(options.schedule, first, self.steps / self.total_steps)
        n = min(round(ratio * n_alive), len(mask) - n_alive)
        pruned = weight.abs().masked_fill_(~alive, torch.inf).topk(n, largest=False, sorted=False).indices
        grown = gradient.view(-1).abs().masked_fill_(alive, -1).topk(n, sorted=False).indices
        mask[pruned], mask[grown] = 0, 1
        for exchanged in (pruned, grown):
            weight[exchanged] = 0
            for moment in self.optimizer.state[parameter].values():
                if moment.shape == parameter.shape:
                    moment.view(-1)[exchanged] = 0


def _random_mask(parameter: nn.Parameter, density: float, generator: torch.Generator) -> Tensor:
    alive = torch.randperm(parameter.numel(), generator=generator)[: round(density * parameter.numel())]
    return torch.zeros(parameter.numel()).index_fill_(0, alive, 1).view_as(parameter).to(parameter.device)
