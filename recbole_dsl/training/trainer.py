"""RecBole's trainers, with sparse weights and a topology that follows the training."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property, wraps
from typing import Any, ClassVar, Optional

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
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.sparsification import SparsityReport, sparsify
from recbole_dsl.topology.engine import DynamicTopology, TopologyUpdate
from recbole_dsl.training.attributes import AttributeWatch
from recbole_dsl.training.checkpoint import read_checkpoint, write_checkpoint
from recbole_dsl.training.data_start import start_weights
from recbole_dsl.training.model_caches import derived_names, drop_caches, restore_model
from recbole_dsl.training.optimizers import make_fast
from recbole_dsl.training.other_parameters import check_other_parameters
from recbole_dsl.training.run_files import best_file, last_file, new_model_file
from recbole_dsl.training.run_options import refuse_without_gradients, resolve_options
from recbole_dsl.training.run_state import restore_random, restore_run, run_state
from recbole_dsl.training.step_count import is_pretraining, steps_to_come

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
        self.train_data: Optional[AbstractDataLoader] = None
        self.last_valid_result: Optional[dict[str, float]] = None
        self.run_name = secrets.token_hex(8)
        self._random_state: Optional[dict] = None
        self._verbose = True
        self._has_saved = False
        self._epoch: Optional[int] = None
        graphs = compress_graphs(model) if self.dsl_config.fast_graph else []
        super().__init__(config, model)
        self.saved_model_file = _name_for_all(config, new_model_file(config))
        self.last_model_file = last_file(self.saved_model_file)
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

    @cached_property
    def attributes(self) -> AttributeWatch:
        """Sees what changes, beside weights, from when it is first asked for: a training or a resuming begins."""
        owners = {**dict(self.model.named_modules()), "trainer": self}
        owners = {name: one for name, one in owners.items() if not isinstance(one, SparseWeight)}
        saved_otherwise = {*derived_names(self.model), *getattr(self.model, "other_parameter_name", ())}
        return AttributeWatch(owners, saved_otherwise | _names_of_recbole(type(self)))

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
                self.topology.attach(optimizer)
        elif not any(value is known for value in vars(optimizer).values() for known in self.optimizers):
            raise DSLError(
                f"optimizer={type(optimizer).__name__}: must be a torch.optim.Optimizer, or call "
                "trainer.topology.attach with the one that it uses first"
            )
        self._optimizer = optimizer

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: Optional[AbstractDataLoader] = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Optional[Callable[[int, float], None]] = None,
    ) -> tuple[float, Optional[dict[str, float]]]:
        """Train as RecBole's trainer does, then log the cost table.

        With ``saved``, and unless the option ``save_last`` is False, the state after each epoch is kept beside the
        best epoch's file, for `resume_checkpoint`. A training that was resumed and had ended is not begun again.
        """
        self.train_data, self._verbose = train_data, verbose
        _ = self.attributes
        if saved:
            check_other_parameters(self.model, derived_names(self.model))
        self._start_weights(train_data)
        self.topology.total_steps = steps_to_come(self, train_data, self.start_epoch)
        if self._random_state is not None:
            restore_random(self._random_state, train_data)
            self._random_state = None
        if self._is_finished():
            self.logger.info(f"nothing left to do: {self._how_it_ended()}")
            result = self.best_valid_score, self.best_valid_result
        else:
            with self._every_epoch(train_data, saved):
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
            if _distributed(self.config):
                # the first process writes the file
                dist.barrier()
            path = model_file or self.saved_model_file
            checkpoint = read_checkpoint(path, self.device, self.config["model"])
            if model_file is None and checkpoint["run"] not in ("unknown", self.run_name):
                raise DSLError(f"model_file={path}: another run has written it since")
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
        """Continue from a checkpoint: weights, topology, optimizers, schedulers and every random state.

        From the last state of a run (``.last``) the training goes on as if it had never stopped, to the bit. From
        the file of a best epoch it does too, unless gradients for the next topology update were being summed.

        Raises:
            DSLError: if the file is not a whole checkpoint of such a run; nothing is changed then.
        """
        path = str(resume_file)
        checkpoint = restore_run(self, path)
        self.saved_model_file = best_file(path)
        self.last_model_file = last_file(path)
        if checkpoint["run"] != "unknown":
            self.run_name = checkpoint["run"]
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_valid_score = checkpoint["best_valid_score"]
        result = checkpoint["best_valid_result"]
        self.best_valid_result = None if result is None else OrderedDict(result)
        self._random_state = checkpoint["random_state"]
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def _is_finished(self) -> bool:
        epochs = self.pretrain_epochs if is_pretraining(self) else self.epochs
        return self.start_epoch > 0 and (self.start_epoch >= epochs or self.cur_step > self.stopping_step)

    def _how_it_ended(self) -> str:
        if self.cur_step > self.stopping_step:
            return f"the training stopped early after epoch {self.start_epoch - 1}, as stopping_step says"
        return f"the training has had its {self.start_epoch} epochs; a larger value of epochs goes on"

    @contextmanager
    def _every_epoch(self, train_data: AbstractDataLoader, saved: bool) -> Iterator[None]:
        """Within it, keep the last state before each epoch and at the end, and follow the number of steps."""
        usual = self._train_epoch

        @wraps(usual)
        def train_epoch(data: AbstractDataLoader, epoch: int, *args: Any, **kwargs: Any) -> Any:
            if self._epoch is not None:
                self._keep_last(self._epoch, saved)
            if epoch > self.start_epoch:
                self._follow_steps(train_data, epoch)
            self._epoch = epoch
            return usual(data, epoch, *args, **kwargs)

        # an attribute, so that an own trainer's method is followed too; those of RecBole call their base's
        self._train_epoch = train_epoch
        self._epoch = None
        try:
            if self.start_epoch == 0:
                # a disk that is full is known now rather than after the first epoch
                self._keep_last(-1, saved)
            yield
            self._keep_last(self._epoch, saved)
        except KeyboardInterrupt:
            if saved and self._keeps_last:
                self.logger.warning(f"interrupted; to go on: recbole-dsl train --resume={self.last_model_file}")
            raise
        finally:
            del self._train_epoch

    def _follow_steps(self, train_data: AbstractDataLoader, epoch: int) -> None:
        before, self.topology.total_steps = self.topology.total_steps, steps_to_come(self, train_data, epoch)
        if self.topology.step == 0:
            self.logger.warning(
                "the topology has seen no step of an optimizer: assign it to trainer.optimizer, or call "
                "trainer.topology.attach(optimizer)"
            )
        elif before != self.topology.total_steps:
            self.logger.info(
                f"{self.topology.step} optimizer steps so far: the topology's schedule now spans "
                f"{self.topology.total_steps} instead of {before}"
            )

    @property
    def _keeps_last(self) -> bool:
        return self.config["save_last"] is not False

    def _keep_last(self, epoch: Optional[int], saved: bool) -> None:
        if epoch is not None and saved and self._keeps_last and self._is_first_process:
            write_checkpoint(self.last_model_file, run_state(self, epoch, whole=True))

    @property
    def _is_first_process(self) -> bool:
        return self.config["single_spec"] or self.config["local_rank"] == 0

    def _start_weights(self, train_data: AbstractDataLoader) -> None:
        started = start_weights(self.model, train_data._dataset, self.dsl_config.seed)
        brought = {name: w.brought for name, w in sparse_weights(self.model).items() if w.brought}
        if brought and self.start_epoch == 0:
            named = ", ".join(f"{name} ({how})" for name, how in brought.items())
            self.logger.info(f"start from the largest of the values that they were given: {named}")
        if not started:
            return
        self.topology.restart()
        self.logger.info(f"start from a factorisation of the training data: {', '.join(started)}")

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Save a model between the stages of a pre-training."""
        self._write(saved_model_file, epoch)
        self.saved_model_file = saved_model_file

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        if not self._is_first_process:
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        self._write(path, epoch)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def _write(self, path: str, epoch: int) -> None:
        write_checkpoint(path, run_state(self, epoch, whole=False))
        self._has_saved = True

    def _build_optimizer(self, **kwargs):
        optimizer = super()._build_optimizer(**kwargs)
        make_fast(optimizer)
        if isinstance(optimizer, torch.optim.SparseAdam):
            for weight in self.sparsity.weights.values():
                weight.sparse_gradient = True
        self.topology.attach(optimizer)
        return optimizer

    def _valid_epoch(self, valid_data, show_progress=False):
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        self.last_valid_result = result
        return score, result

    def _score_one(self, model: AbstractRecommender) -> Tensor:
        drop_caches(model)
        return model.predict(self.train_data._dataset[[0]].to(self.device))

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


def _names_of_recbole(trainer_class: type) -> set[str]:
    """The attributes of a trainer that RecBole's classes and ours set, rather than the user's own."""
    kinds = [kind for kind in trainer_class.__mro__ if kind.__module__.split(".")[0] in ("recbole", "recbole_dsl")]
    made = [vars(kind)["__init__"].__code__.co_names for kind in kinds if "__init__" in vars(kind)]
    return {"_train_epoch", "attributes", *(name for names in made for name in names)}


def _distributed(config) -> bool:
    return not config["single_spec"] and dist.is_initialized()


def _name_for_all(config, path: str) -> str:
    """The file name that the first process has chosen."""
    if not _distributed(config):
        return path
    names = [path]
    dist.broadcast_object_list(names, 0)
    return names[0]


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
