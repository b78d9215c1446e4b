"""The optimizers of a trainer: RecBole's, fast for sparse weights, and any that the user assigns."""

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.config import DSLConfig
from recbole_dsl.distributed.agreement import is_parallel
from recbole_dsl.errors import DSLError
from recbole_dsl.optim.fused import make_fast
from recbole_dsl.optim.lazy_adam import make_lazy
from recbole_dsl.optim.uncompiled import leave_out_compiler
from recbole_dsl.sparse.modules import stored_parameters
from recbole_dsl.sparsification import SparsityReport
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.training.shared_random import between_steps


class WithOptimizers:
    """The part of a trainer that makes optimizers, and lets the topology follow their steps."""

    config: Config
    model: AbstractRecommender
    dsl_config: DSLConfig
    sparsity: SparsityReport
    topology: DynamicTopology

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Every optimizer that this trainer had."""
        return self.topology.optimizers

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The one that trains; the topology follows the steps of any that is assigned.

        Raises:
            DSLError: if it trains weights that the model had before they became sparse, or is no optimizer and
                holds none that is known.
        """
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            if not any(optimizer is known for known in self.optimizers):
                _refuse_dense(optimizer, self.model, self.sparsity)
                for weight in self.sparsity.weights.values():
                    if weight.reader.pending is not None:
                        weight.reader.pending.end()
                self._follow(optimizer)
        elif not any(value is known for value in vars(optimizer).values() for known in self.optimizers):
            raise DSLError(
                f"optimizer={type(optimizer).__name__}: must be a torch.optim.Optimizer, or call "
                "trainer.topology.attach with the one that it uses first"
            )
        self._optimizer = optimizer

    def _build_optimizer(self, **kwargs):
        leave_out_compiler()
        if "params" in kwargs:
            kwargs["params"] = stored_parameters(kwargs["params"])
        optimizer = super()._build_optimizer(**kwargs)
        # other kernels round in another way, and at density 1 the numbers are to be RecBole's
        is_plain = self.dsl_config.density == 1
        if not is_plain or isinstance(optimizer, torch.optim.SparseAdam):
            make_fast(optimizer)
        if isinstance(optimizer, torch.optim.SparseAdam):
            for weight in self.sparsity.weights.values():
                weight.reader.sparse_gradient = True
        elif not any(
            (is_plain, self.config["clip_grad_norm"], self.config["enable_scaler"], is_parallel(self.config))
        ):
            # the others work on dense gradients
            make_lazy(optimizer, self.sparsity.weights.values())
        self._follow(optimizer)
        return optimizer

    def _follow(self, optimizer: torch.optim.Optimizer) -> None:
        self.topology.attach(optimizer)
        optimizer.register_step_post_hook(between_steps)


def _refuse_dense(optimizer: torch.optim.Optimizer, model: AbstractRecommender, sparsity: SparsityReport) -> None:
    known = {id(parameter) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            dense = [name for name, weight in sparsity.weights.items() if weight.shape == parameter.shape]
            if dense and id(parameter) not in known:
                raise DSLError(
                    f"optimizer={type(optimizer).__name__}: trains {dense[0]} as it was before it became sparse; "
                    "make it from model.parameters() afterwards"
                )
