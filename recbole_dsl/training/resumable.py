"""Training that may be stopped at any moment and resumed from its last state."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, wraps
from inspect import unwrap
from time import monotonic
from typing import Any

import torch
from recbole.config import Config
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import set_color
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from recbole_dsl.checkpoint.attributes import AttributeWatch
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint, refuse_other_file, write_checkpoint
from recbole_dsl.checkpoint.codec import plain, plain_entries
from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from recbole_dsl.checkpoint.run_record import RunRecord
from recbole_dsl.checkpoint.run_state import RunState
from recbole_dsl.checkpoint.state_checks import loadable, state_problem
from recbole_dsl.config import DSLConfig
from recbole_dsl.data.rows import FileRows, rows_of
from recbole_dsl.data.trained_on import trained_on
from recbole_dsl.distributed.agreement import agree_on_values, begin_epoch, is_first
from recbole_dsl.errors import DSLError
from recbole_dsl.options.run_options import options_to_save
from recbole_dsl.sparse.modules import sparse_shapes
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.sparsification import SparsityReport
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.training.console import say_epoch
from recbole_dsl.training.faults import said_in_one_line
from recbole_dsl.training.model_state import (
    derived_names,
    read_other_parameters,
    restore_model,
    save_other_parameters,
)
from recbole_dsl.training.padding import without_padding
from recbole_dsl.training.run_files import best_file, from_here, is_last, last_file
from recbole_dsl.training.step_count import is_pretraining, steps_to_come
from recbole_dsl.training.warm_start import Night


class Resumable:
    """The part of a trainer that keeps the last state of a run and continues from one.

    Attributes:
        last_model_file: where the last state is kept.
        record: losses, results and times of the epochs so far.
        nights: what each warm start before this run, and that of this run, has done: `Night.to_dict`.
        night: the warm start of this run; None without one, or if it was resumed.
        resumed: the file that this continues from, if any.
    """

    config: Config
    model: AbstractRecommender
    dsl_config: DSLConfig
    sparsity: SparsityReport
    topology: DynamicTopology
    optimizers: list[Optimizer]
    train_data: AbstractDataLoader | None
    # what RecBole notes of it only after the best epoch is saved
    last_valid_result: dict[str, float] | None
    run_name: str
    last_model_file: str
    record: RunRecord
    nights: list[dict[str, Any]]
    night: Night | None
    resumed: FileRows | None = None
    _has_saved = False
    # whether `fit` was asked to tell how it goes
    _verbose: bool
    _random_state: dict | None = None
    # the epoch whose state is still to be kept
    _epoch: int | None = None

    def resume_checkpoint(self, resume_file: str) -> None:
        """Continue from a checkpoint: weights, topology, optimizers, schedulers and every random state.

        From the last state of a run (``.last``) the training goes on to the bit as if it had never stopped. So it
        does from the file of a best epoch, unless gradients for the next topology update were being summed.
        Data with other ids than the file's is refused by `fit` and `evaluate`, before they begin.

        Raises:
            DSLError: if the file is not a whole checkpoint of such a run, or the run would write over other files;
                nothing is changed then.
        """
        path = str(resume_file)
        best, last = (os.path.abspath(file) for file in (best_file(path), last_file(path)))
        for file in {best, last} - {os.path.abspath(path)}:
            refuse_other_file(file)
        checkpoint = read_checkpoint(path, self.device, self.config["model"])
        state = RunState.of(checkpoint)
        self._restore(state, path)
        self.resumed = FileRows(checkpoint, "resume", path)
        self.saved_model_file, self.last_model_file = best, last
        if state.run != "unknown":
            self.run_name = state.run
        self.start_epoch = state.epoch + 1
        self.cur_step = state.cur_step
        self.best_valid_score = state.best_valid_score
        self.record = RunRecord.of(state.record)
        self.nights = state.nights
        result = state.best_valid_result
        self.best_valid_result = None if result is None else OrderedDict(result)
        self._random_state = state.random_state
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def keep_last_state(self, epoch: int) -> None:
        """Write the state after ``epoch`` to `last_model_file` at once; for the ``callback_fn`` of `fit`."""
        write_checkpoint(self.last_model_file, vars(self.state(epoch, whole=True)))
        self._epoch = None

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Save a model between the stages of a pre-training."""
        self._write(saved_model_file, epoch)
        self.saved_model_file = saved_model_file

    def _save_checkpoint(self, epoch, verbose=True, **kwargs):
        if not is_first(self.config):
            return
        path = kwargs.pop("saved_model_file", self.saved_model_file)
        self._write(path, epoch)
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")

    def _write(self, path: str, epoch: int) -> None:
        write_checkpoint(path, vars(self.state(epoch, whole=False)))
        self._has_saved = True

    def state(self, epoch: int, whole: bool) -> RunState:
        """What a checkpoint holds of this run after ``epoch``.

        Args:
            whole: whether a run that goes on from it is to be the same to the bit: the gradients summed for the
                next topology update are then part of it.
        """
        model, config = self.model, self.config
        data = self.train_data._dataset if self.train_data is not None else None
        earlier = self.resumed.trained_on if self.resumed is not None else None
        if data is not None and self.night is not None:
            # a night is known by its own interactions
            earlier = {"digest": trained_on(data)["digest"], "sample": self.night.seen}
        # RecBole saves the best epoch before it notes the result that made it the best
        result = self.best_valid_result if whole else self.last_valid_result or self.best_valid_result
        return RunState(
            run=self.run_name,
            model=config["model"],
            dataset=config["dataset"],
            config=options_to_save(config),
            dsl=self.dsl_config.to_dict(),
            epoch=epoch,
            cur_step=self.cur_step,
            best_valid_score=float(self.best_valid_score),
            best_valid_result=plain(result),
            state_dict=dict(model.state_dict()),
            shapes=sparse_shapes(model),
            other_parameter=save_other_parameters(model),
            attributes=self.attributes.changed(),
            learners=[type(optimizer).__name__ for optimizer in self.optimizers],
            optimizers=[plain(optimizer.state_dict()) for optimizer in self.optimizers],
            schedulers={name: plain_entries(one.state_dict()) for name, one in self._schedulers.items()},
            topology=self.topology.state_dict(with_window=whole),
            random_state=random_state(_loader_generators(self.train_data)),
            record=self.record.to_dict(),
            nights=self.nights,
            rows={} if data is None else rows_of(data),
            trained_on={} if data is None else trained_on(data, earlier),
        )

    @cached_property
    def attributes(self) -> AttributeWatch:
        """What sees changes beside the weights, from when it is first asked for: when `fit` or resuming begins."""
        owners = {**dict(self.model.named_modules()), "trainer": self}
        owners = {name: one for name, one in owners.items() if not isinstance(one, SparseWeight)}
        saved_otherwise = {*derived_names(self.model), *getattr(self.model, "other_parameter_name", ())}
        return AttributeWatch(owners, saved_otherwise | _names_of_recbole(type(self)))

    @property
    def _schedulers(self) -> dict[str, LRScheduler]:
        """The learning-rate schedulers of a trainer of the user's own, by attribute."""
        return {name: v for name, v in vars(self).items() if isinstance(v, (LRScheduler, ReduceLROnPlateau))}

    def _restore(self, state: RunState, path: str) -> None:
        """Take over ``state``, read from ``path``; all of it is checked before any of it is used."""
        kinds = [type(optimizer).__name__ for optimizer in self.optimizers]
        if state.learners != kinds:
            learners = ",".join(state.learners)
            raise DSLError(f"learner={','.join(kinds)}: must be {learners}, which {path} was trained with")
        problem = state_problem(
            state, self.model, self.optimizers, self._schedulers, self.topology, self.attributes
        )
        if problem:
            raise DSLError(f"model_file={path}: does not fit the model: {problem}")
        read_other_parameters(self.model, state.other_parameter, path)
        best = best_file(path)
        if state.best_valid_result is not None and is_last(path) and not os.path.isfile(best):
            raise DSLError(f"model_file={path}: {best}, the best epoch of that run, must be beside it")
        restore_model(self.model, vars(state), path)
        self.attributes.restore(state.attributes)
        for optimizer, one in zip(self.optimizers, state.optimizers):
            optimizer.load_state_dict(loadable(optimizer, one))
        for name, scheduler in self._schedulers.items():
            scheduler.load_state_dict({**scheduler.state_dict(), **state.schedulers.get(name, {})})
        self.topology.load_state_dict(state.topology)

    def _restore_random_state(self, train_data: AbstractDataLoader) -> None:
        if self._random_state is not None:
            restore_random_state(self._random_state, _loader_generators(train_data))
            self._random_state = None

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
            self._end_epoch(saved)
            if epoch > self.start_epoch:
                self._follow_steps(train_data, epoch)
            self._epoch = epoch
            begin_epoch(self.config, epoch)
            began = monotonic()
            with self._reading_histories():
                loss = usual(data, epoch, *args, **kwargs)
            agree_on_values(self.config, self.optimizers)
            self.record.trained(epoch, self.topology.step, loss, monotonic() - began)
            return loss

        # an attribute, which comes before the method of a user's own trainer too
        self._train_epoch = train_epoch
        self._epoch = None
        steps = self.topology.step
        try:
            if self.start_epoch == 0:
                # a full disk shows now rather than after the first epoch
                self._keep_last(-1, saved)
            with said_in_one_line(self.config, "the first training step", lambda: self.topology.step > steps):
                yield
            self._end_epoch(saved)
        except KeyboardInterrupt as interrupt:
            if saved and self._keeps_last:
                interrupt.add_note(f"to go on: recbole-dsl train --resume={from_here(self.last_model_file)}")
            raise
        finally:
            del self._train_epoch

    def _reading_histories(self) -> AbstractContextManager[None]:
        # dropout draws other random numbers without padding, and at density 1 the numbers are to be RecBole's
        is_trimmed = self.dsl_config.trim_padding and self.sparsity.density < 1
        return without_padding(self.model) if is_trimmed else nullcontext()

    def _end_epoch(self, saved: bool) -> None:
        """Tell what the last epoch came to and keep its state, unless that is done."""
        if self._epoch is not None:
            if self._verbose:
                say_epoch(self.record, str(self.config["valid_metric"]), is_best=self.cur_step == 0)
            self._keep_last(self._epoch, saved)

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

    def _keep_last(self, epoch: int, saved: bool) -> None:
        if not saved or not self._keeps_last:
            return
        self.topology.pool_windows()
        if is_first(self.config):
            write_checkpoint(self.last_model_file, vars(self.state(epoch, whole=True)))


def _loader_generators(train_data: Any) -> list[torch.Generator]:
    """The generators that shuffle ``train_data``; a knowledge-aware model has a loader made of two."""
    loaders = [getattr(train_data, name, None) for name in ("general_dataloader", "kg_dataloader")]
    generators = [getattr(loader, "generator", None) for loader in (train_data, *loaders)]
    return [generator for generator in generators if generator is not None]


def _names_of_recbole(trainer_class: type) -> set[str]:
    """The attributes of a trainer that RecBole's classes and ours set, rather than the user's own."""
    kinds = [kind for kind in trainer_class.__mro__ if kind.__module__.split(".")[0] in ("recbole", "recbole_dsl")]
    made = [unwrap(vars(kind)["__init__"]).__code__.co_names for kind in kinds if "__init__" in vars(kind)]
    return {"_train_epoch", "attributes", *(name for names in made for name in names)}
