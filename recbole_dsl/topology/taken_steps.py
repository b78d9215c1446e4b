"""The gradients of the steps that an optimizer takes, without those that a gradient scaler skips."""

import sys

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from recbole_dsl.private_torch import DisableTorchFunctionSubclass
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.gradients import GradientBuffer

# bytes of gradients that may wait for a step if the buffer is smaller
_FEW = 2**22


def scaler_at_work() -> GradScaler | None:
    """The gradient scaler whose ``step`` called the optimizer's step, whose hook calls this, or None.

    An optimizer holds no reference to the scaler of a training loop.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "step":
            caller = frame.f_locals.get("self")
            if isinstance(caller, GradScaler):
                return caller if caller.is_enabled() else None
        frame = frame.f_back
    return None


def was_skipped(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` skipped its step since a gradient was infinite or NaN.

    Only fused optimizers do; for the others the scaler does not call ``step``.
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


class StepGradients:
    """Adds the dense gradients of one tensor to its buffer if the optimizer takes the step.

    Without a gradient scaler they are added at once. With one, they are too large by a factor that is known at the
    step, which may be skipped, so they wait for it. Like those of the parameters they add up until a step is taken
    or until they are cleared.

    Attributes:
        waits: whether they wait for the step, as they do unless the last step had no scaler.
    """

    def __init__(self, weight: SparseWeight, buffer: GradientBuffer, waits: bool):
        self.buffer, self.waits = buffer, waits
        self._weight = weight
        self._waiting: list[tuple[Tensor | None, Tensor]] = []
        self._has_ended = False
        self._hook = weight.values.register_post_accumulate_grad_hook(self._end)
        weight.reader.gradient_sink = self._take

    def close(self) -> None:
        """Collect no more."""
        self._weight.reader.gradient_sink = None
        self._hook.remove()

    def count(self, scaler: GradScaler | None) -> None:
        """Add what waits to the buffer, since a step was taken; ``scaler`` had scaled it."""
        if scaler is not None:
            if not self.waits:
                # the sums hold the scaled gradients of the first step with a scaler
                self.buffer.sums.zero_()
            self.buffer.peak_bytes = max(self.buffer.peak_bytes, self.buffer.bytes + self._bytes)
        factor = 1.0 if scaler is None else 1 / scaler.get_scale()
        for ids, gradient in self._waiting:
            self.buffer.add(ids, gradient, factor)
        self._waiting.clear()
        self.waits = scaler is not None

    def drop(self) -> None:
        """Drop what waits, since the step was skipped."""
        self._waiting.clear()

    def _take(self, ids: Tensor | None, gradient: Tensor) -> None:
        if not self.waits:
            self.buffer.add(ids, gradient)
            return
        if self._has_ended and self._waiting and self._is_cleared():
            # the scaler or the training loop skipped a step
            self._waiting.clear()
        self._has_ended = False
        # a training loop may reuse the tensor for its next batch
        self._waiting.append(self.buffer.held_of(None if ids is None else ids.clone(), gradient))
        if len(self._waiting) > 1 and self._bytes > max(_FEW, self.buffer.bytes):
            self._merge()

    @property
    def _bytes(self) -> int:
        return sum(gradient.nbytes for _, gradient in self._waiting)

    def _end(self, values: Tensor) -> None:
        """Note the end of a backward pass."""
        self._has_ended = True

    def _is_cleared(self) -> bool:
        with DisableTorchFunctionSubclass():
            gradient = self._weight.values.grad
        return gradient is None or (not gradient.is_sparse and not gradient.any())

    def _merge(self) -> None:
        """Add up what waits for the same rows, so that it takes no more memory than the buffer."""
        every = torch.arange(self._weight.n_rows, device=self._weight.values.device)
        waiting = [(every if ids is None else ids, gradient) for ids, gradient in self._waiting]
        rows = torch.cat([ids for ids, _ in waiting]).unique()
        total = self.buffer.sums.new_zeros(len(rows), self._weight.n_columns)
        for ids, gradient in waiting:
            total.index_add_(0, torch.searchsorted(rows, ids), gradient.to(total.dtype))
        self._waiting = [(rows, total)]
