"""Training that can be stopped at any moment and goes on from its last state."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, wraps
from inspect import unwrap
from time import monotonic
from typing import Any

from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from torch.optim import Optimizer

from recbole_dsl.checkpoint.attributes import AttributeWatch
from recbole_dsl.checkpoint.checkpoint_file import refuse_other_file, write_checkpoint
from recbole_dsl.checkpoint.run_record import RunRecord
from recbole_dsl.data.rows import FileRows
from recbole_dsl.distributed.agreement import agree_on_values, begin_epoch, is_first
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.training.console import say_epoch
from recbole_dsl.training.faults import said_in_one_line
from recbole_dsl.training.model_caches import derived_names
from recbole_dsl.training.run_files import best_file, from_here, last_file
from recbole_dsl.training.run_state import restore_random, restore_run, run_state
from recbole_dsl.training.step_count import is_pretraining, steps_to_come


class Resumable:
    """The part of a trainer that keeps the last state of a run and continues from one.

    Attributes:
        last_model_file: where the last state is kept.
        record: losses, results and times of the epochs so far.
        resumed: whose rows the file holds that this continues from; None if it continues from none.
    """

    last_model_file: str
    record: RunRecord
    optimizers: list[Optimizer]
    resumed: FileRows | None = None
    _random_state: dict | None = None
    # the one whose state is still to be kept
    _epoch: int | None = None

    def resume_checkpoint(self, resume_file: str) -> None:
        """Continue from a checkpoint: weights, topology, optimizers, schedulers and every random state.

        From the last state of a run (``.last``) the training goes on as if it had never stopped, to the bit. From
        the file of a best epoch it does too, unless gradients for the next topology update were being summed.
        Data with other ids than the file's is refused by `fit` and `evaluate`, before they begin.

        Raises:
            DSLError: if the file is not a whole checkpoint of such a run, or the run would write over other files;
                nothing is changed then.
        """
        path = str(resume_file)
        best, last = (os.path.abspath(file) for file in (best_file(path), last_file(path)))
        for file in {best, last} - {os.path.abspath(path)}:
            refuse_other_file(file)
        checkpoint = restore_run(self, path)
        self.resumed = FileRows(checkpoint, "resume", path)
        self.saved_model_file, self.last_model_file = best, last
        if checkpoint["run"] != "unknown":
            self.run_name = checkpoint["run"]
        self.start_epoch = checkpoint["epoch"] + 1
        self.cur_step = checkpoint["cur_step"]
        self.best_valid_score = checkpoint["best_valid_score"]
        self.record = RunRecord.of(checkpoint["record"])
        result = checkpoint["best_valid_result"]
        self.best_valid_result = None if result is None else OrderedDict(result)
        self._random_state = checkpoint["random_state"]
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def keep_last_state(self, epoch: int) -> None:
        """Write the state after ``epoch`` to `last_model_file` at once; for the ``callback_fn`` of `fit`."""
        write_checkpoint(self.last_model_file, run_state(self, epoch, whole=True))
        self._epoch = None

    @cached_property
    def attributes(self) -> AttributeWatch:
        """Sees what changes, beside weights, from when it is first asked for: a training or a resuming begins."""
        owners = {**dict(self.model.named_modules()), "trainer": self}
        owners = {name: one for name, one in owners.items() if not isinstance(one, SparseWeight)}
        saved_otherwise = {*derived_names(self.model), *getattr(self.model, "other_parameter_name", ())}
        return AttributeWatch(owners, saved_otherwise | _names_of_recbole(type(self)))

    def _restore_random_state(self, train_data: AbstractDataLoader) -> None:
        if self._random_state is not None:
            restore_random(self._random_state, train_data)
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
            if self._epoch is not None:
                say_epoch(self, self._epoch)
                self._keep_last(self._epoch, saved)
            if epoch > self.start_epoch:
                self._follow_steps(train_data, epoch)
            self._epoch = epoch
            begin_epoch(self.config, epoch)
            began = monotonic()
            loss = usual(data, epoch, *args, **kwargs)
            agree_on_values(self.config, self.optimizers)
            self.record.trained(epoch, self.topology.step, loss, monotonic() - began)
            return loss

        # an attribute, so that an own trainer's method is followed too; those of RecBole call their base's
        self._train_epoch = train_epoch
        self._epoch = None
        steps = self.topology.step
        try:
            if self.start_epoch == 0:
                # a disk that is full is known now rather than after the first epoch
                self._keep_last(-1, saved)
            with said_in_one_line(self.config, "the first training step", lambda: self.topology.step > steps):
                yield
            say_epoch(self, self.record.epoch[-1] if self.record.epoch else -1)
            self._keep_last(self._epoch, saved)
        except KeyboardInterrupt as interrupt:
            if saved and self._keeps_last:
                interrupt.add_note(f"to go on: recbole-dsl train --resume={from_here(self.last_model_file)}")
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

    def _keep_last(self, epoch: int | None, saved: bool) -> None:
        if epoch is None or not saved or not self._keeps_last:
            return
        self.topology.pool_windows()
        if self._is_first_process:
            write_checkpoint(self.last_model_file, run_state(self, epoch, whole=True))

    @property
    def _is_first_process(self) -> bool:
        return is_first(self.config)


def _names_of_recbole(trainer_class: type) -> set[str]:
    """The attributes of a trainer that RecBole's classes and ours set, rather than the user's own."""
    kinds = [kind for kind in trainer_class.__mro__ if kind.__module__.split(".")[0] in ("recbole", "recbole_dsl")]
    made = [unwrap(vars(kind)["__init__"]).__code__.co_names for kind in kinds if "__init__" in vars(kind)]
    return {"_train_epoch", "attributes", *(name for names in made for name in names)}
