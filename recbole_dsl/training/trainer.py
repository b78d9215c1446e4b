"""RecBole's trainers, with sparse weights and a topology that follows the training."""

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from time import monotonic
from typing import Any, ClassVar

import torch
from recbole.config import Config
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.evaluator import Collector
from recbole.model.abstract_recommender import AbstractRecommender, SequentialRecommender
from recbole.trainer import Trainer
from recbole.utils import set_color
from torch import Tensor

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.run_record import RunRecord
from recbole_dsl.config import DSLConfig
from recbole_dsl.data.pretrained import require_rows_of_pretrained
from recbole_dsl.data.rows import FileRows
from recbole_dsl.data.trained_on import mark_of, warn_of_other_interactions
from recbole_dsl.distributed.agreement import (
    agree_on_norms,
    agree_on_start,
    agree_on_weights,
    is_first,
    is_parallel,
    random_numbers_of_first,
    same_for_all,
    sent_checkpoint,
)
from recbole_dsl.errors import DSLError
from recbole_dsl.evaluation.full_sort import ranked
from recbole_dsl.evaluation.processes import shared_evaluation
from recbole_dsl.evaluation.ranking import Ranked, RankingCollector, in_bounded_batches
from recbole_dsl.evaluation.sampled import Sampled, in_blocks, rank
from recbole_dsl.graphs.propagation import compress_graphs
from recbole_dsl.measure.cost import Cost, measure_cost
from recbole_dsl.options.process_options import refuse_different_data, refuse_in_several
from recbole_dsl.options.recbole_models import refuse_without_gradients
from recbole_dsl.options.run_options import resolve_options
from recbole_dsl.sparse.loading import accept_sparse_states
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparsification import SparsityReport, sparsify
from recbole_dsl.topology.engine import DynamicTopology, TopologyUpdate
from recbole_dsl.training.console import BriefBars, say_part
from recbole_dsl.training.data_start import start_weights
from recbole_dsl.training.dropout import scale_dropout
from recbole_dsl.training.faults import said_in_one_line
from recbole_dsl.training.free_memory import return_free_memory
from recbole_dsl.training.model_state import drop_caches, restore_model, save_other_parameters
from recbole_dsl.training.optimizers import WithOptimizers
from recbole_dsl.training.parallel_init import parallel_init
from recbole_dsl.training.resumable import Resumable
from recbole_dsl.training.run_files import last_file, new_name
from recbole_dsl.training.scored_sample import scored_sample
from recbole_dsl.training.shared_random import between_steps, guard_seeding
from recbole_dsl.training.step_count import epochs_of, is_pretraining, steps_to_come
from recbole_dsl.training.warm_start import Night, warm_start
from recbole_dsl.turns import training, turn

# models that continue a pre-training (S3Rec, RaCT) load its file in their constructor, before they are sparse
accept_sparse_states(AbstractRecommender)
guard_seeding()


class DSLMixin(WithOptimizers, Resumable):
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

    # of `register`; they rank below the Config
    default_options: ClassVar[dict[str, Any]] = {}

    @turn()
    def __init__(self, config: Config, model: AbstractRecommender):
        self.dsl_config, self.sparsity = self.prepare(config, model)
        self.topology = DynamicTopology(self.sparsity.weights, self.dsl_config, on_update=self._log_update)
        self.cost: Cost | None = None
        self.train_data: AbstractDataLoader | None = None
        self.last_valid_result: dict[str, float] | None = None
        self.run_name = same_for_all(config, secrets.token_hex(8))
        self.record = RunRecord()
        self.night: Night | None = None
        self.nights: list[dict[str, Any]] = []
        self.bars = BriefBars(self.topology)
        self._verbose = True
        self._has_evaluated = False
        graphs = compress_graphs(model) if self.dsl_config.fast_graph else []
        try:
            with parallel_init(self, config, model) as model:
                super().__init__(config, model)
        except OSError as error:
            place = error.filename or config["checkpoint_dir"]
            raise DSLError(f"{place}: must be a place that can be written: {error.strerror}") from error
        if type(self.eval_collector) is Collector:
            self.eval_collector = RankingCollector(config)
        # absolute, for a program may change its working folder
        self.checkpoint_dir = os.path.abspath(config["checkpoint_dir"])
        self.saved_model_file = os.path.join(self.checkpoint_dir, same_for_all(config, new_name(config)))
        self.last_model_file = last_file(self.saved_model_file)
        self.logger.info(self.sparsity)
        if graphs:
            self.logger.info(f"propagation matrices in compressed rows: {', '.join(graphs)}")

    @classmethod
    def prepare(cls, config: Config, model: AbstractRecommender) -> tuple[DSLConfig, SparsityReport]:
        """Check the options and make ``model`` sparse, before anything is written."""
        refuse_without_gradients(config["model"], model.type)
        dsl_config = resolve_options(config, cls.default_options)
        if is_parallel(config):
            refuse_in_several(config, dsl_config.budget)
        agree_on_weights(config, model)
        was_sparse = bool(sparse_weights(model))
        report = sparsify(model, dsl_config)
        if not was_sparse:
            report.dropout = scale_dropout(model, report.density, dsl_config.dropout_factor)
        return dsl_config, report

    @property
    def topology_updates(self) -> list[TopologyUpdate]:
        """Every topology update so far."""
        return self.topology.updates

    @property
    def exploration_rate(self) -> float:
        """R: share of all weights of the sparse tensors that were alive at least once."""
        return self.topology.exploration_rate

    def fit(
        self,
        train_data: AbstractDataLoader,
        valid_data: AbstractDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train as RecBole's trainer does, then log the cost table.

        With ``saved``, and unless the option ``save_last`` is False, the state after each epoch is kept beside the
        best epoch's file, for `resume_checkpoint`. A training that was resumed and had ended is not begun again.
        """
        with training(self.config["model"]):
            self._require_rows(train_data, valid_data)
            self.train_data, self._verbose = train_data, verbose
            _ = self.attributes
            if saved:
                # what cannot be saved is said before it is trained
                save_other_parameters(self.model)
            self._start_weights(train_data)
            if isinstance(self.model, SequentialRecommender):
                # many are best long before the last epoch, and lose a tenth if no exchange comes until then
                self.topology.epochs = epochs_of(self)
            self.topology.total_steps = steps_to_come(self, train_data, self.start_epoch)
            self._restore_random_state(train_data)
            if self._is_finished():
                self.logger.info(f"nothing left to do: {self._how_it_ended()}")
                say_part(
                    "done", f"{self._how_it_ended()}. Nothing is left to train; the best epoch is tested again"
                )
                # the test that follows needs it
                self.eval_collector.data_collect(train_data)
                result = self.best_valid_score, self.best_valid_result
            else:
                with self.bars.shown(), self._every_epoch(train_data, saved):
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
            forward, n_scored = scored_sample(train_data._dataset, self.device)
            self.cost = measure_cost(
                self.model,
                self.optimizers,
                forward=forward,
                n_scored=n_scored,
                checkpoint=self.saved_model_file if saved else None,
                growth_bytes=max(self.record.growth_bytes, self.topology.growth_peak_bytes),
                record_bytes=self.topology.record_bytes,
            )
            if verbose:
                self.logger.info(
                    f"{set_color('exploration rate', 'yellow')}: {self.exploration_rate:.4f}\n{self.cost}"
                )
            return result

    @turn()
    def evaluate(
        self,
        eval_data: AbstractDataLoader,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Evaluate as RecBole's trainer does, with the weights and the topology of the best epoch."""
        if not eval_data:
            return None
        # a user's own loader need not name its dataset
        dataset = getattr(eval_data, "_dataset", None)
        if load_best_model:
            path = model_file or self.saved_model_file
            checkpoint = self._read(path, own=model_file is None) if is_first(self.config) else None
            # the others wait here for the first process, which wrote the file
            checkpoint = sent_checkpoint(self.config, checkpoint)
            file = FileRows(checkpoint, "model_file", path)
            if dataset is not None:
                file.require(dataset)
            if model_file is not None:
                train = self.train_data._dataset if self.train_data is not None else None
                warn_of_other_interactions(file, train, {"evaluated": dataset})
            restore_model(self.model, checkpoint, path)
            self.logger.info(f"Loading model structure and parameters from {path}")
        elif self.resumed is not None and dataset is not None:
            self.resumed.require(dataset)
        try:
            with ExitStack() as kept:
                kept.enter_context(self.bars.shown())
                kept.enter_context(self._reading_histories())
                eval_data = in_bounded_batches(eval_data)
                for weight in sparse_weights(self.model).values():
                    kept.enter_context(weight.dense_kept())
                if is_parallel(self.config):
                    agree_on_norms(self.config, self.model)
                    eval_data = kept.enter_context(shared_evaluation(self, eval_data))
                    kept.enter_context(random_numbers_of_first(self.config))
                kept.enter_context(said_in_one_line(self.config, "the evaluation", lambda: self._has_evaluated))
                eval_data = in_blocks(self, ranked(self, eval_data))
                result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
                self._has_evaluated = True
                return result
        finally:
            drop_caches(self.model)

    def _read(self, path: str, own: bool) -> dict[str, Any]:
        checkpoint = read_checkpoint(path, self.device, self.config["model"])
        if own and checkpoint["run"] not in ("unknown", self.run_name):
            raise DSLError(f"model_file={path}: another run has written it since")
        return checkpoint

    def _require_rows(self, train_data: AbstractDataLoader, valid_data: AbstractDataLoader | None) -> None:
        train, valid = train_data._dataset, getattr(valid_data, "_dataset", None)
        if is_parallel(self.config):
            refuse_different_data(mark_of(train))
        require_rows_of_pretrained(self.config, train)
        if self.resumed is not None:
            self.resumed.require(train)
            warn_of_other_interactions(self.resumed, train, {"validation": valid})

    def _map_reduce(self, result, num_sample):
        # it is of all users already
        return result

    def _start_weights(self, train_data: AbstractDataLoader) -> None:
        if self.dsl_config.warm_start and self.resumed is None and self.start_epoch == 0:
            self.night = warm_start(self.config, self.model, train_data._dataset)
            self.nights = [*self.night.before, self.night.to_dict()]
            agree_on_start(self.config, self.model)
            self.topology.restart()
        awaited = any(weight.awaits_data for weight in sparse_weights(self.model).values())
        options = self.dsl_config
        started = start_weights(
            self.model, train_data._dataset, options.seed, options.item_density_ratio, options.budget
        )
        if awaited and not started and options.sparse_init == "svd":
            self.logger.warning(
                "sparse_init=svd: no sparse tensor has a row for each user or each item, so all values are random"
            )
        if started:
            agree_on_start(self.config, self.model)
        pretrained = {name: w.pretrained for name, w in sparse_weights(self.model).items() if w.pretrained}
        if pretrained and self.start_epoch == 0:
            named = ", ".join(f"{name} ({how})" for name, how in pretrained.items())
            self.logger.info(f"start from the largest of the values that they were given: {named}")
        if awaited:
            self.topology.restart()
        if not started:
            return
        return_free_memory()
        self.logger.info(f"start from a factorisation of the training data: {', '.join(started)}")

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            raise DSLError(
                f"learning_rate={self.learning_rate}: must be smaller, or clip_grad_norm be given: the loss is "
                f"not a number after {self.topology.step} steps"
            )

    def _full_sort_batch_eval(self, batched_data):
        between_steps()
        if isinstance(batched_data, Ranked):
            return None, batched_data, None, None
        return super()._full_sort_batch_eval(batched_data)

    def _neg_sample_batch_eval(self, batched_data):
        between_steps()
        if isinstance(batched_data, Sampled):
            return rank(self, batched_data)
        return super()._neg_sample_batch_eval(batched_data)

    def _valid_epoch(self, valid_data, show_progress=False):
        began = monotonic()
        score, result = super()._valid_epoch(valid_data, show_progress=show_progress)
        self.record.validated(result, monotonic() - began)
        self.last_valid_result = result
        return score, result

    def _log_update(self, update: TopologyUpdate) -> None:
        self.bars.refresh()
        self.record.growth_bytes = max(self.record.growth_bytes, self.topology.growth_peak_bytes)
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
            shown = {
                "step": update.step,
                "ratio": f"{update.ratio:.4f}",
                "pruned = grown": f"{update.exchanged:,}",
                "R": f"{update.exploration_rate:.4f}",
                "density": ", ".join(f"{name} {value:.4f}" for name, value in update.density.items()),
            }
            text = ", ".join(f"{set_color(name, 'blue')}: {value}" for name, value in shown.items())
            self.logger.info(f"{set_color('topology update', 'green')} [{text}]")


@cache
def dsl_trainer(base: type) -> type:
    """The trainer class ``base`` of RecBole, with Dynamic Sparse Learning."""
    if issubclass(base, DSLMixin):
        return base
    return type(f"DSL{base.__name__}", (DSLMixin, base), {"__doc__": DSLMixin.__doc__})


class DSLTrainer(DSLMixin, Trainer):
    __doc__ = DSLMixin.__doc__
