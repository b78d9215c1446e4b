"""Tensors that are computed only when an operation without a rule of its own needs them."""

from collections.abc import Callable, Mapping
from functools import cache
from inspect import Signature, signature
from logging import getLogger
from typing import Any

import torch
from torch import Tensor

from recbole_dsl.private_torch import DisableTorchFunctionSubclass, make_wrapper_subclass
from recbole_dsl.sparse.trees import map_only

# answered without the entries
_KNOWN = {
    getattr(Tensor, name).__get__
    for name in "shape dtype device layout requires_grad ndim is_sparse is_cuda is_cpu is_meta itemsize".split()
} | {
    getattr(Tensor, name)
    for name in "size dim ndimension numel nelement __len__ is_floating_point is_complex element_size "
    "get_device __hash__".split()
}

# gets the arguments of the function; returns NotImplemented if the tensor has to be computed
Rule = Callable[..., Any]


class LazyTensor(Tensor):
    """A tensor that takes no memory until it is needed, with a place in autograd.

    A PyTorch function that has a rule for it does without the entries. Any other function gets the tensor that
    `made` computes. The dtype and the device are those of ``like``.

    Attributes:
        rules: PyTorch function -> what is called in its place.
    """

    rules: Mapping[Callable, Rule] = {}
    # handles a call before other subclasses of Tensor do
    comes_first = True

    @staticmethod
    def __new__(cls, shape, like: Tensor, requires_grad: bool, **_):
        return make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device, requires_grad=requires_grad)

    def __init__(self, shape, like: Tensor, requires_grad: bool, **attributes):
        vars(self).update(attributes)

    def made(self) -> Tensor:
        """The computed tensor, differentiable; it is computed once and kept."""
        if "_made" not in vars(self):
            with torch.enable_grad():
                vars(self)["_made"] = self.make()
        return vars(self)["_made"]

    def make(self) -> Tensor:
        """Compute the tensor."""
        raise NotImplementedError

    @property
    def is_made(self) -> bool:
        """Whether it has been computed, and so may have been written to."""
        return "_made" in vars(self)

    def __repr__(self) -> str:
        return repr(self.made())

    def __reduce_ex__(self, protocol):
        return self.made().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        memo[id(self)] = copied = self.made().__deepcopy__(memo)
        return copied

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _KNOWN:
            with DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        for kind in types if torch.is_grad_enabled() else ():
            rule = kind.rules.get(func) if issubclass(kind, LazyTensor) else None
            if rule is not None and _takes(rule, args, kwargs):
                result = rule(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        made = []
        args, kwargs = map_only(LazyTensor, lambda t: made.append(t) or t.made(), (args, kwargs))
        for one in made:
            _say_that_made(getattr(func, "__name__", str(func)), type(one).__name__, tuple(one.shape))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        # a call that bypasses __torch_function__ would lose the gradient
        raise RuntimeError(f"{func}: cannot be called on a tensor that has not been made")


def _takes(rule: Rule, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether ``rule`` accepts these arguments."""
    try:
        _signature(rule).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


@cache
def _signature(rule: Rule) -> Signature:
    return signature(rule)


@cache
def _say_that_made(function: str, kind: str, shape: tuple[int, ...]) -> None:
    getLogger(__name__).debug(f"{function}: needs a {kind} of {shape} as a dense tensor, which is computed")
