"""Trying a model out without changing it: a copy to be thrown away, and random states that are put back."""

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

# bytes up to which a model is copied, however little of it is trained
_SMALL = 2**30
# training took the memory of a gradient and, with Adam, of two moments for each weight
_TRAINED = 3

_CHANGEABLE = nn.Module, Tensor, np.ndarray, list, dict, set, MethodType


class NotToBeCopied(Exception):
    """A model of which there is no copy that has nothing in common with it."""


def throwaway_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that may be used in any way: nothing that is done to it reaches ``model``.

    Raises:
        NotToBeCopied: if ``model`` takes much more memory than its training did, or holds functions that reach
            outside of themselves for something that can be changed.
        Exception: what an object raises that cannot be copied.
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
    """Put the states of Python's, NumPy's and PyTorch's random numbers back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _WithoutHistory(TorchFunctionMode):
    """Copy tensors that a model keeps from its last step, which PyTorch refuses, for the graph behind them."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    """Those that modules hold as attributes or hooks; copies of them are they themselves."""
    for module in model.modules():
        for value in vars(module).values():
            for one in value.values() if isinstance(value, dict) else (value,):
                if isinstance(one, FunctionType):
                    yield one


def _tensors(model: nn.Module) -> list[Tensor]:
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *held]


def _bytes(tensors: list[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values() if not _is_sparse(t))


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided
