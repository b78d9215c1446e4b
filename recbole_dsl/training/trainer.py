"""RecBole's trainers, with sparse weights and a topology that follows the training."""

from contextlib import ExitStack
from functools import cache
from typing import Any, Callable, ClassVar, Optional

import torch
import torch.distributed as dist
from recbole.config import Config
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import set_color
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from recbole_dsl.config import DSLConfig
from recbole_dsl.errors import DSLError
from recbole_dsl.graphs.propagation import compress_graphs
from recbole_dsl.measure.cost import Cost, measure_cost
from recbole_dsl.sparse.loading import accept_sparse_states
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparsification import SparsityReport, sparsify
from recbole_dsl.topology.engine import DynamicTopology, TopologyUpdate
from recbole_dsl.training.checkpoint import plain, plain_entries, read_checkpoint, write_checkpoint
from recbole_dsl.training.data_start import start_weights
from recbole_dsl.training.model_caches import derived_names, drop_caches, restore_model
from recbole_dsl.training.optimizers import SparseAdam, fused
from recbole_dsl.training.other_parameters import check_other_parameters, save_other_parameters
from recbole_dsl.training.random_state import random_state, restore_random_state
from recbole_dsl.training.run_options import refuse_without_gradients, resolve_options
from recbole_dsl.training.step_count import is_pretraining, total_steps

# options that tell one of several processes apart
_OF_A_PROCESS = {"local_rank", "world_size", "nproc", "ip", "port", "offset"}
# options that Config makes from what it was given, in a form that it would not take
_DERIVED = _OF_A_PROCESS | {"data_path", "device", "gpu_id", "single_spec", "train_neg_sample_args"}

# models that continue a pre-training (S3Rec, RaCT) load its file in their constructor, before they are sparse
accept_sparse_states(AbstractRecommender)


class DSLMixin:
    """Dynamic Sparse Learning on top of any of RecBole's trainers; see `dsl_trainer`.

    Args:
        config: a RecBole Config. Options of `DSLConfig` in it are used, the others have their default.
        model: a RecBole model; its weights become sparse here, unless they already are.

    Attributes:
        dsl_config: the options in use.
        sparsity: which weights are sparse, how dense each, and which stayed dense.
        topology: the topology engine.
        cost: the cost table, after `fit`.

    Raises:
        DSLError: before anything is written, if an option is wrong or the model cannot be sparse.
    """

    # ranks below the Config: what `register` was given
    default_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Config, model: AbstractRecommender):
        self.dsl_config, self.sparsity = self.prepare(config, model)
        self.topology = DynamicTopology(self.sparsity.weights, self.dsl_config, on_update=self._log_update)
        self.cost: Optional[Cost] = None
        self._random_state: Optional[dict] = None
        self._train_data = None
        self._last_valid_result = None
        self._verbose = True
        self._has_saved = False
        graphs = compress_graphs(model) if self.dsl_config.fast_graph else []
        super().__init__(config, model)
        self.logger.info(self.sparsity)
        if graphs:
            self.logger.info(f"propagation matrices in compressed rows: {', '.join(graphs)}")

    @classmethod
    def prepare(cls, config: Config, model: AbstractRecommender) -> tuple[DSLConfig, SparsityReport]:
        """Check the options and make ``model`` sparse; what a trainer does before it writes anything."""
        refuse_without_gradients(config["model"], model.type)
        dsl_config = resolve_options(config, cls.default_options)
        if _distributed(config) and dsl_config.budget == "global":
            raise DSLError("budget=global: must be uniform or erk with more than one process")
        _agree_on_weights(config, model)
        report = sparsify(model, dsl_config)
        _keep_topology_local(config, model)
        return dsl_config, report

    @property
    def topology_updates(self) -> list[TopologyUpdate]:
        """Every topology update so far."""
        return self.topology.updates

    @property
    def exploration_rate(self) -> float:
        """R: share of all weights of the sparse tensors that were alive at least once."""
        return self.topology.exploration_rate

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Every optimizer that this trainer built."""
        return self.topology.optimizers

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: Optional[AbstractDataLoader] = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Optional[Callable[[int, float], None]] = None,
    ) -> tuple[float, Optional[dict[str, float]]]:
        """Train as RecBole's trainer does, then log the cost table."""
        self._train_data, self._verbose = train_data, verbose
        if saved:
            check_other_parameters(self.model, derived_names(self.model))
        self._start_weights(train_data)
        self.topology.total_steps = total_steps(self, train_data)
        if self._random_state is not None:
            restore_random_state(self._random_state, _generators(train_data))
            self._random_state = None
        result = super().fit(
            train_data,
            valid_data,
            verbose=verbose,
            saved=saved,
            show_progress=show_progress,
            callback_fn=callback_fn,
        )
        if saved and is_pretraining(self) and not self._has_saved:
            # the stage was shorter than its save_step; the next one, and the test, need what it trained
            self._save_checkpoint(self.pretrain_epochs - 1, verbose=verbose)
        self.cost = measure_cost(
            self.model,
            self.optimizers,
            forward=self._score_one,
            checkpoint=self.saved_model_file if saved else None,
            growth_bytes=self.topology.growth_peak_bytes,
        )
        if verbose:
            self.logger.info(
                f"{set_color('exploration rate', 'yellow')}: {self.exploration_rate:.4f}\n{self.cost}"
            )
        return result

    def evaluate(
        self,
        eval_data: AbstractDataLoader,
        load_best_model: bool = True,
        model_file: Optional[str] = None,
        show_progress: bool = False,
    ) -> Optional[dict[str, float]]:
        """Evaluate as RecBole's trainer does, with the weights and the topology of the best epoch."""
        if not eval_data:
            return None
        if load_best_model:
            path = model_file or self.saved_model_file
            checkpoint = read_checkpoint(path, self.device, self.config["model"])
            restore_model(self.model, checkpoint, path)
            self.logger.info(f"Loading model structure and parameters from {path}")
        try:
            with ExitStack() as kept:
                for weight in sparse_weights(self.model).values():
                    kept.enter_context(weight.dense_kept())
                return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        finally:
            drop_caches(self.model)

    def resume_checkpoint(self, resume_file: str) -> None:
        """Continue from a checkpoint: weights, topology, optimizers and every random state.

        Raises:
            DSLError: if the file is not a whole checkpoint of this model; nothing is changed then.
        """
        path = str(resume_file)
        checkpoint = read_checkpoint(path, self.device, self.config["model"])
        kinds = [type(optimizer).__name__ for optimizer in self.optimizers]
        if checkpoint["learners"] != kinds:
            learners = ",".join(checkpoint["learners"])
            raise DSLError(f"learner={','.join(kinds)}: must be {learners}, which {path} was trained with")
        restore_model(self.model, checkpoint, path)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizers"]):
            optimizer.load_state_dict(state)
        self.topology.load_state_dict(checkpoint["topology"])
        self.saved_model_file = path
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_valid_score = checkpoint["best_valid_score"]
        self.best_valid_result = checkpoint["best_valid_result"]
        self._random_state = checkpoint["random_state"]
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def _start_weights(self, train_data: AbstractDataLoader) -> None:
        started = start_weights(self.model, train_data._dataset, self.dsl_config.seed)
        if not started:
            return
        self.topology.restart()
        self.logger.info(f"start from a factorisation of the training data: {', '.join(started)}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Save a model between the stages of a pre-training."""
        self._write(saved_model_file, epoch)
        self.saved_model_file = saved_model_file

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        self._write(path, epoch)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def _write(self, path: str, epoch: int) -> None:
        write_checkpoint(path, self._checkpoint(epoch))
        self._has_saved = True

    def _checkpoint(self, epoch: int) -> dict[str, Any]:
        return {
            "model": self.config["model"],
            "dataset": self.config["dataset"],
            "config": _options(self.config),
            "dsl": self.dsl_config.to_dict(),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            # RecBole saves before it notes the result that made it save
            "best_valid_result": plain(self._last_valid_result or self.best_valid_result),
            "state_dict": dict(self.model.state_dict()),
            "other_parameter": save_other_parameters(self.model, derived_names(self.model)),
            "learners": [type(optimizer).__name__ for optimizer in self.optimizers],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "topology": self.topology.state_dict(),
            "random_state": random_state(_generators(self._train_data)),
        }

    def _build_optimizer(self, **kwargs):
        optimizer = fused(super()._build_optimizer(**kwargs))
        if isinstance(optimizer, torch.optim.SparseAdam):
            optimizer = SparseAdam(optimizer.param_groups)
            for weight in self.sparsity.weights.values():
                weight.sparse_gradient = True
        self.topology.attach(optimizer)
        return optimizer

    def _valid_epoch(self, valid_data, show_progress=False):
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        self._last_valid_result = result
        return score, result

    def _score_one(self, model: AbstractRecommender) -> Tensor:
        drop_caches(model)
        return model.predict(self._train_data._dataset[[0]].to(self.device))

    def _log_update(self, update: TopologyUpdate) -> None:
        values = {
            "ratio": update.ratio,
            "exchanged": update.exchanged,
            "exploration_rate": update.exploration_rate,
            **{f"density/{name}": density for name, density in update.density.items()},
        }
        for name, value in values.items():
            self.tensorboard.add_scalar(f"DSL/{name}", value, update.step)
        self.wandblogger.log_metrics({**values, "topology_step": update.step}, head="dsl")
        if self._verbose:
            density = ", ".join(f"{name} {value:.4f}" for name, value in update.density.items())
            self.logger.info(
                f"{set_color('topology update', 'green')} [{set_color('step', 'blue')}: {update.step}, "
                f"{set_color('ratio', 'blue')}: {update.ratio:.4f}, "
                f"{set_color('pruned = grown', 'blue')}: {update.exchanged:,}, "
                f"{set_color('R', 'blue')}: {update.exploration_rate:.4f}, "
                f"{set_color('density', 'blue')}: {density}]"
            )


@cache
def dsl_trainer(base: type) -> type:
    """The trainer class ``base`` of RecBole, with Dynamic Sparse Learning."""
    if issubclass(base, DSLMixin):
        return base
    return type(f"DSL{base.__name__}", (DSLMixin, base), {"__doc__": DSLMixin.__doc__})


class DSLTrainer(DSLMixin, Trainer):
    __doc__ = DSLMixin.__doc__


def _generators(train_data) -> list[torch.Generator]:
    """Those that shuffle ``train_data``: a knowledge-aware model's loader is made of two."""
    loaders = [getattr(train_data, name, None) for name in ("general_dataloader", "kg_dataloader")]
    return [loader.generator for loader in (train_data, *loaders) if hasattr(loader, "generator")]


def _options(config) -> dict[str, Any]:
    """The options of a run as plain data, from which the same Config can be built."""
    final = {k: v for k, v in config.final_config_dict.items() if k not in _DERIVED}
    given = {k: v for k, v in config.external_config_dict.items() if k not in _OF_A_PROCESS}
    return plain_entries({**given, **final})


def _distributed(config) -> bool:
    return not config["single_spec"] and dist.is_initialized()


def _agree_on_weights(config, model) -> None:
    """Start every process from the same dense weights: an initial topology may depend on them."""
    if _distributed(config) and not sparse_weights(model):
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def _keep_topology_local(config, model) -> None:
    """Keep DDP from broadcasting topologies: every process makes the same, in types that few backends send."""
    if not _distributed(config):
        return
    names = [f"{name}.{part}" for name in sparse_weights(model) for part in ("columns", "row_offsets")]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
