"""PyTorch's optimizers without its compiler, which they load and do not use: two seconds and 150 MB."""

import functools
from collections.abc import Callable
from inspect import isfunction
from typing import Any

import torch
from torch import optim

from recbole_dsl.patching import changes
from recbole_dsl.private_torch import unless_compiler_loaded


@changes(
    "torch.optim.Optimizer and the classes of torch.optim",
    "they load PyTorch's compiler to tell it what not to compile, which takes two seconds and 150 MB",
    "the compiler is loaded by somebody else",
)
def leave_out_compiler() -> None:
    """Keep PyTorch's optimizers from loading its compiler; once something else loads it, they use it as usual."""
    classes = [
        kind for kind in vars(optim).values() if isinstance(kind, type) and issubclass(kind, optim.Optimizer)
    ]
    for kind in classes:
        for name, method in list(vars(kind).items()):
            if isfunction(method) and hasattr(method, "__wrapped__"):
                _leave_out_of(kind, name, method)


def _leave_out_of(kind: type, name: str, method: Callable) -> None:
    around, within = method.__code__.co_qualname, method.__wrapped__
    if around.startswith("_disable_dynamo."):
        setattr(kind, name, unless_compiler_loaded(method, within))
    elif around.startswith("_use_grad_for_differentiable."):
        setattr(kind, name, unless_compiler_loaded(method, _with_gradients(within)))


def _with_gradients(step: Callable) -> Callable:
    """``step``, with gradients only where the optimizer is to be differentiable, as PyTorch runs it."""

    @functools.wraps(step)
    def with_gradients(optimizer: optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        gradients = torch.enable_grad if optimizer.defaults["differentiable"] else torch.no_grad
        with gradients():
            return step(optimizer, *args, **kwargs)

    return with_gradients
