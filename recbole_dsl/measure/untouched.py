"""Trying a model out without changing it: a throwaway copy, and random states that are restored."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# bytes up to which a model is always copied
_SMALL = 2**30
# training needs memory for a gradient and, with Adam, two moments for each weight
_TRAINED = 3

_CHANGEABLE = nn.Module, Tensor, np.ndarray, list, dict, set, MethodType


class NotToBeCopied(Exception):
    """A model that has no independent copy."""


def throwaway_copy(model: nn.Module) -> nn.Module:
    """An independent copy of ``model``: nothing that is done to it changes ``model``.

    Raises:
        NotToBeCopied: if ``model`` takes much more memory than its training did, or holds functions with closures
            or defaults that can be changed.
        Exception: whatever an object raises that cannot be copied.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if _bytes(_tensors(model)) > max(_SMALL, _TRAINED * _bytes(weights)):
        raise NotToBeCopied("a copy may not fit into memory")
    for function in _functions(model):
        reached = [cell.cell_contents for cell in function.__closure__ or ()] + list(function.__defaults__ or ())
        if any(isinstance(one, _CHANGEABLE) for one in reached):
            raise NotToBeCopied(f"{function.__qualname__} reaches what a copy would share")
    with _WithoutHistory():
        return copy.deepcopy(model)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random states of Python, NumPy and PyTorch afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _WithoutHistory(TorchFunctionMode):
    """Detach tensors with a graph, kept from a model's last step, when they are copied; PyTorch refuses to."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    """Functions that modules hold as attributes or hooks; a deep copy shares them."""
    for module in model.modules():
        for value in vars(module).values():
            for one in value.values() if isinstance(value, dict) else (value,):
                if isinstance(one, FunctionType):
                    yield one


def _tensors(model: nn.Module) -> list[Tensor]:
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *held]


def _bytes(tensors: list[Any]) -> int:
    return sum(t.nbytes for t in {id(t): t for t in tensors}.values() if not _is_sparse(t))


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided
