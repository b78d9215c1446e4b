"""The optimizers that RecBole builds, at the cost of the alive weights."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, optim

from recbole_dsl.private_torch import entries_of

# forms of a step that a user may have chosen
_FORMS = ("fused", "foreach", "capturable", "differentiable")


def make_fast(optimizer: optim.Optimizer) -> None:
    """Make ``optimizer``, which has taken no step, faster, in place.

    It stays the same object, which schedulers may hold, and computes the same: PyTorch's fused form makes one pass
        over the weights instead of one per operation. Nothing changes if the user has chosen a form, or there is
        none for the parameters. PyTorch's SparseAdam becomes `SparseAdam`.
    """
    if type(optimizer) is optim.SparseAdam:
        # making the first optimizer of a class lets its step call hooks
        SparseAdam([torch.zeros(1)])
        optimizer.__class__ = SparseAdam
        return
    groups = optimizer.param_groups
    if any(group.get(form) for group in groups for form in _FORMS):
        return
    if any(state.get("step") for state in optimizer.state.values()):
        return
    if "fused" not in inspect.signature(type(optimizer)).parameters or any("fused" not in g for g in groups):
        return
    try:
        example = type(optimizer)([{**group, "foreach": None, "fused": True} for group in groups])
    except (RuntimeError, TypeError, ValueError):
        # what is not supported depends on device, type and release, with an error of its own each
        return
    for group in (*groups, optimizer.defaults):
        group.update(foreach=None, fused=True)
    # the fused form and gradient scalers ask for these
    vars(optimizer).update({name: value for name, value in vars(example).items() if name not in vars(optimizer)})


class SparseAdam(optim.SparseAdam):
    """Adam that updates only entries with a gradient (RecBole's ``learner: sparse_adam``).

    With a sparse gradient the moments and weights at its entries are updated, as in ``torch.optim.SparseAdam``,
    but without sorting the entries of one or two look-ups. With a dense one, which PyTorch's refuses, all are:
    RecBole gives every parameter of a model to one optimizer, and biases have dense gradients.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_of(parameter, group)
        return loss

    def _step_of(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        gradient = -parameter.grad if group["maximize"] else parameter.grad
        tensors = parameter, state["exp_avg"], state["exp_avg_sq"]
        if gradient.is_sparse:
            index, gradient = distinct_entries(gradient)
            some = [t.index_select(0, index) for t in tensors]
            _adam(*some, gradient, state["step"], group)
            for tensor, changed in zip(tensors, some):
                tensor.index_copy_(0, index, changed)
        else:
            _adam(*tensors, gradient, state["step"], group)


def distinct_entries(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct indices (n,) of a one-dimensional sparse tensor, in any order, and the sums of the values there.

    Each look-up contributes ascending indices. Those of one or two look-ups, as in pairwise losses, are merged
    much faster than ``coalesce`` sorts them.
    """
    (index,), values = entries_of(gradient)
    ends = (index.diff() <= 0).nonzero().view(-1) + 1
    if len(ends) == 0:
        return index, values
    if len(ends) > 1:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    sizes = [int(ends), len(index) - int(ends)]
    (first, second), (totals, others) = index.split(sizes), values.split(sizes)
    place = torch.searchsorted(first, second).clamp_(max=len(first) - 1)
    new = first[place] != second
    again = (~new).nonzero().view(-1)
    totals = totals.index_add(0, place[again], others[again])
    return torch.cat([first, second[new]]), torch.cat([totals, others[new]])


def _adam(
    weight: Tensor, first: Tensor, second: Tensor, gradient: Tensor, step: int, group: dict[str, Any]
) -> None:
    """One step of Adam (Kingma & Ba 2015, Alg. 1) on tensors of one shape, in place."""
    beta1, beta2 = group["betas"]
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    size = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    weight.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-size)
