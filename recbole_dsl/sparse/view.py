"""The dense copy of a sparse weight, protected from writes that would be lost."""

import copy
import os
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import swap_tensors

from recbole_dsl.errors import DSLError
from recbole_dsl.private_torch import DisableTorchFunctionSubclass, eval_frame_callback, not_traced
from recbole_dsl.sparse.trees import leaves

_TORCH = os.path.dirname(torch.__file__) + os.sep
_IN_PLACE = {
    f"__i{name}__" for name in "add sub mul div truediv floordiv mod pow matmul and or xor lshift rshift".split()
} | {"__setitem__", "__set__", "__delete__"}
# functions whose names end in "_" but that change no element
_HARMLESS = {"requires_grad_", "retain_grad_"}
# functions that give away memory, which may then be written to unseen
_STORAGE = torch.Tensor.untyped_storage
_MEMORY = {
    *(_STORAGE, torch.Tensor.storage, torch.Tensor.__dlpack__),
    torch.Tensor.__cuda_array_interface__.__get__,
}
_WRITTEN_TO = ("out", "input", "self", "tensor")


class DenseView(torch.Tensor):
    """A dense copy of a sparse weight that behaves like a plain tensor, except that writing raises.

    The entries live in the sparse weight; an in-place change of the copy would vanish silently. Tensors that share
    its memory (``.data``, slices, ``.t()``) are protected as well, and an array of NumPy is read-only. Results
    with memory of their own are plain tensors, and so are saved, pickled and deep copies. ``nn.Parameter`` makes
    an independent parameter of it.

    ``requires_grad`` is that of the sparse weight's values, and sets theirs. ``grad`` is theirs as a dense tensor,
    zero where nothing is alive; only None may be assigned to it.

    Raises:
        DSLError: on an in-place operation, an item assignment, use as ``out=``, when its memory is asked for, or
            when an optimizer is to train it; it names the line. What goes past PyTorch's functions (``data_ptr``,
            the constructor of ``torch.Tensor``) is not seen.
    """

    @classmethod
    def of(
        cls, dense: torch.Tensor, values: torch.Tensor, spread: Callable[[torch.Tensor], torch.Tensor]
    ) -> "DenseView":
        """``dense``, made of the parameter ``values``, as a view that is an ``nn.Parameter`` to ``isinstance``.

        Args:
            spread: makes such a dense tensor of a gradient of ``values``.
        """
        view = dense.as_subclass(cls)
        view.__dict__.update(_values=values, _spread=spread)
        not_to_be_swapped(view)
        return view

    @property
    def _is_param(self) -> bool:
        return "_values" in self.__dict__

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # nn.Parameter marks what it made, by detaching it, of a tensor that is not a plain one
        self.__class__ = nn.Parameter

    def set_(self, *args, **kwargs):
        # PyTorch does not ask __torch_function__ for it
        raise _lost("set_")

    def __reduce_ex__(self, protocol):
        return _plain(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        memo[id(self)] = copied = copy.deepcopy(_plain(self), memo)
        return copied

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if any(getattr(kind, "comes_first", False) for kind in types):
            return NotImplemented
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func in _OF_PARAMETERS and args[0]._is_param:
            return _OF_PARAMETERS[func](*args, **kwargs)
        named = [kwargs[key] for key in _WRITTEN_TO if key in kwargs]
        written = [*args[:1], *named] if _writes(func) else [kwargs.get("out")]
        # PyTorch itself asks for the storage to tell tensors apart
        of_torch = func is _STORAGE and sys._getframe(1).f_code.co_filename.startswith(_TORCH)
        if (func in _MEMORY and not of_torch) or _views(written):
            raise _lost(name)
        with DisableTorchFunctionSubclass():
            if torch.compiler.is_compiling():
                return func(*args, **kwargs)
            views = _views((args, kwargs))
            versions = [view._version for view in views if not view.is_inference()]
            result = func(*args, **kwargs)
            # such as relu(inplace=True), or embedding(max_norm=...)
            if versions != [view._version for view in views if not view.is_inference()]:
                raise _lost(name)
            return _protected(result, views)


def _views(values: Any) -> list[DenseView]:
    return [value for value in leaves(values) if isinstance(value, DenseView)]


@not_traced
def _protected(result: Any, views: list[DenseView]) -> Any:
    """``result`` of an operation on ``views``, protected where it shares their memory."""
    if isinstance(result, torch.Tensor):
        if any(result is view for view in views) or result.layout is not torch.strided:
            return result
        storage = result.untyped_storage().data_ptr()
        shares = any(view.untyped_storage().data_ptr() == storage for view in views)
        return result.as_subclass(DenseView) if shares else result
    if isinstance(result, np.ndarray):
        result.flags.writeable = False
        return result
    if isinstance(result, Iterator):
        return iter([_protected(one, views) for one in result])
    if isinstance(result, (list, tuple)) and any(isinstance(one, torch.Tensor) for one in result):
        protected = [_protected(one, views) for one in result]
        return type(result)(protected)
    return result


def _gradient(view: DenseView) -> torch.Tensor | None:
    with DisableTorchFunctionSubclass():
        if view.retains_grad:
            return view.grad
    gradient = view._values.grad
    if gradient is None:
        return None
    return view._spread(gradient).as_subclass(DenseView)


def _set_gradient(view: DenseView, gradient: torch.Tensor | None) -> None:
    if gradient is not None:
        raise _lost("grad")
    view._values.grad = None


def _set_requires_grad(view: DenseView, requires_grad: bool = True) -> DenseView:
    view._values.requires_grad = requires_grad
    return view


def _refuse_in_optimizer(view: DenseView) -> bool:
    # an optimizer asks for it of what is no leaf
    raise DSLError(
        f"{calling_line()}: the dense copy of a sparse weight, which is made anew each time, cannot be optimized; "
        "give the optimizer the parameters() of its module"
    )


_OF_PARAMETERS = {
    torch.Tensor.grad.__get__: _gradient,
    torch.Tensor.grad.__set__: _set_gradient,
    torch.Tensor.requires_grad.__get__: lambda view: view._values.requires_grad,
    torch.Tensor.requires_grad.__set__: _set_requires_grad,
    torch.Tensor.requires_grad_: _set_requires_grad,
    torch.Tensor.is_leaf.__get__: lambda view: False,
    torch.Tensor.retains_grad.__get__: _refuse_in_optimizer,
}


def _lost(name: str) -> DSLError:
    return DSLError(
        f"{calling_line()}: {name} would write into the dense copy of a sparse weight, where it is lost; change "
        "the weight before sparsify(), read it only, or take the parameters() of its module"
    )


def not_to_be_swapped(tensor: torch.Tensor) -> None:
    """Let ``swap_tensors`` refuse ``tensor``, as it does where there are weak references."""
    tensor.__dict__["_itself"] = weakref.ref(tensor)


def become(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """``swap_tensors``, even if they are `not_to_be_swapped`."""
    for one in (tensor, other):
        one.__dict__.pop("_itself", None)
    swap_tensors(tensor, other)
    not_to_be_swapped(tensor)


def compiler_is_at_work() -> bool:
    """Whether ``torch.compile`` traces this or its caller, and so needs plain tensors."""
    return torch.compiler.is_compiling() or callable(eval_frame_callback())


def _plain(view: DenseView) -> torch.Tensor:
    with DisableTorchFunctionSubclass():
        return view.as_subclass(torch.Tensor)


def _writes(func: Callable) -> bool:
    if hasattr(func, "_schema"):
        return func._schema.is_mutable
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in _IN_PLACE
    return name.endswith("_") and name not in _HARMLESS


def calling_line() -> str:
    """The user's line that called PyTorch, as ``file:number``."""
    inside = _TORCH, os.path.dirname(os.path.dirname(__file__)) + os.sep
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(inside):
            break
    return f"{frame.filename}:{frame.lineno}"
