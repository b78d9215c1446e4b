"""Adam that updates only the rows that were read, with the result of the one that updates all."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, optim

from recbole_dsl.optim.adam_tail import AdamTail
from recbole_dsl.optim.fused import distinct_entries
from recbole_dsl.private_torch import DisableTorchFunctionSubclass
from recbole_dsl.sparse.compressed_rows import true_at
from recbole_dsl.sparse.weight import SparseWeight

# alive weights from which on it is faster than updating all of them
_MANY = 2**22
# it is not if a step reads more than one in so many of them
_PART = 16
# the largest number of steps that int16 holds
_STEPS = 2**15 - 2
# slots that are settled at a time, to stay in a processor's cache
_BLOCK = 2**16


def make_lazy(optimizer: optim.Optimizer, weights: Iterable[SparseWeight]) -> None:
    """Let ``optimizer``, which has taken no step, postpone the update of entries of large ``weights`` until they
    are read.

    That is done for ``torch.optim.Adam`` without weight decay or AMSGrad, on a CPU. Its state is Adam's, up to
    date when it is saved, and so is a weight whenever it is read. A weight that gets a dense gradient, or of which
    a step reads a large part, is left to PyTorch's step from then on.
    """
    if type(optimizer) is not optim.Adam:
        return
    pending = []
    for group in optimizer.param_groups:
        known = {id(parameter) for parameter in group["params"]}
        for weight in weights:
            if id(weight.values) in known and _is_worth_it(weight) and _is_plain(group):
                pending.append(PendingAdam(weight, optimizer, group))
                weight.reader.pending = pending[-1]
    if not pending:
        return
    taken: list[tuple[Tensor, Tensor]] = []

    def before(optimizer: optim.Optimizer, args: Any, kwargs: Any) -> None:
        for one in pending:
            gradient = one.take_step()
            if gradient is not None:
                taken.append(gradient)

    def after(optimizer: optim.Optimizer, args: Any, kwargs: Any) -> None:
        for values, gradient in taken:
            values.grad = gradient
        taken.clear()

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    optimizer.register_state_dict_pre_hook(lambda _: [one.settle() for one in pending] and None)
    optimizer.register_load_state_dict_post_hook(lambda _: [one.reload() for one in pending] and None)


def _is_worth_it(weight: SparseWeight) -> bool:
    return _MANY <= weight.nnz < weight.numel and weight.values.device.type == "cpu"


def _is_plain(group: dict[str, Any]) -> bool:
    others = ("weight_decay", "amsgrad", "capturable", "differentiable")
    return (
        not any(group.get(name) for name in others)
        and not isinstance(group["lr"], Tensor)
        and _tail(group).is_accurate()
    )


def _tail(group: dict[str, Any]) -> AdamTail:
    return AdamTail(group["lr"], *group["betas"], group["eps"])


class PendingAdam:
    """The updates of one sparse weight that Adam has postponed.

    Until all entries are settled, one that a step has touched is stored with the value that it would approach
    without further gradients; the others are stored as they were when all were settled last.
    """

    def __init__(self, weight: SparseWeight, optimizer: optim.Adam, group: dict[str, Any]):
        self._weight, self._optimizer, self._group = weight, optimizer, group
        self._tail = _tail(group)
        self._steps, self._settled_at = 0, 0
        # steps between the last settling and the last touch of each entry; None while all are settled
        self._touched: Tensor | None = None
        self._decays: tuple[Tensor, Tensor] | None = None
        self._taken: Tensor | None = None

    @torch.no_grad()
    def current(self, slots: Tensor) -> Tensor:
        """The values at ``slots`` (n,), int64, after all steps so far: (n,)."""
        with DisableTorchFunctionSubclass():
            if self._touched is None:
                return self._weight.values.data.index_select(0, slots)
            return self._now(*self._entries(slots), self._touched_at(slots))[0]

    @torch.no_grad()
    def take_step(self) -> tuple[Tensor, Tensor] | None:
        """Step the entries with a gradient; it is removed from the values and returned with them."""
        values = self._weight.values
        with DisableTorchFunctionSubclass():
            gradient = values.grad
        if gradient is None or self._weight.reader.pending is not self:
            return None
        if not gradient.is_sparse:
            self.end()
            return None
        tail = _tail(self._group)
        if tail != self._tail:
            self.settle()
            self._tail, self._decays = tail, None
        with DisableTorchFunctionSubclass():
            slots, of_slots = distinct_entries(gradient)
            self._step(slots, -of_slots if self._group["maximize"] else of_slots)
        if _PART * len(slots) > self._weight.nnz:
            self.end()
        elif self._steps - self._settled_at >= _STEPS:
            self.settle()
        values.grad, self._taken = None, gradient
        return values, gradient

    def has_taken(self, gradient: Tensor) -> bool:
        """Whether the last step was taken with ``gradient``, which must not change then."""
        return gradient is self._taken

    @torch.no_grad()
    def settle(self) -> None:
        """Do all postponed updates, so that values and moments are those of Adam."""
        if self._touched is None:
            return
        with DisableTorchFunctionSubclass():
            for first in range(0, len(self._touched), _BLOCK):
                some = slice(first, first + _BLOCK)
                entries = [tensor[some] for tensor in self._tensors()]
                for entry, now in zip(entries, self._now(*entries, self._touched[some].long())):
                    entry.copy_(now)
        self._touched, self._settled_at = None, self._steps
        self._optimizer.state[self._weight.values]["step"].fill_(self._steps)

    def end(self) -> None:
        """Settle, and leave the weight to PyTorch's optimizer from now on."""
        self.settle()
        self._weight.reader.pending = None

    def reload(self) -> None:
        """Go on from a state that the optimizer has loaded."""
        state = self._optimizer.state.get(self._weight.values)
        self._steps = self._settled_at = int(state["step"]) if state else 0
        self._touched = None

    def _step(self, slots: Tensor, gradient: Tensor) -> None:
        state = self._optimizer.state[self._weight.values]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(self._weight.values.data)
            state["exp_avg_sq"] = torch.zeros_like(self._weight.values.data)
        values, first, second = self._now(*self._entries(slots), self._touched_at(slots))
        self._steps += 1
        beta1, beta2 = self._tail.beta1, self._tail.beta2
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = second.sqrt()
        divisor = (root / (1 - beta2**self._steps) ** 0.5).add_(self._tail.eps)
        values.addcdiv_(first, divisor, value=-self._tail.lr / (1 - beta1**self._steps))
        values -= self._tail.after(self._steps, first, root)
        for tensor, changed in zip(self._tensors(), (values, first, second)):
            tensor.index_copy_(0, slots, changed)
        if self._touched is None:
            self._touched = torch.zeros(self._weight.nnz, dtype=torch.int16)
        self._touched.index_fill_(0, slots, self._steps - self._settled_at)

    def _now(
        self, values: Tensor, first: Tensor, second: Tensor, touched: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values and moments (n,) after all steps so far, from what is stored."""
        if touched is None:
            return values, first, second
        steps = self._steps - self._settled_at
        if self._decays is None or len(self._decays[0]) <= steps:
            self._decays = self._tail.decays(2 * steps, values)
        decays = [decay.index_select(0, steps - touched) for decay in self._decays]
        decayed, second_now = decays[0].mul_(first), decays[1].mul_(second)
        now = values + self._tail.after(self._steps, decayed, second_now.sqrt())
        as_settled = true_at((touched == 0) & (first != 0))
        if len(as_settled):
            some = first[as_settled], second[as_settled].sqrt()
            now.index_add_(0, as_settled, self._tail.after(self._settled_at, *some), alpha=-1)
        return now, decayed, second_now

    def _entries(self, slots: Tensor) -> list[Tensor]:
        return [tensor.index_select(0, slots) for tensor in self._tensors()]

    def _touched_at(self, slots: Tensor) -> Tensor | None:
        return None if self._touched is None else self._touched.index_select(0, slots).long()

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        state = self._optimizer.state[self._weight.values]
        return self._weight.values.data, state["exp_avg"], state["exp_avg_sq"]
