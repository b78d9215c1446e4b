"""The dense form of a sparse weight, protected from writes that would be lost."""

import copy
import os
import traceback

import torch
from torch import nn

from recbole_dsl.errors import DSLError
from recbole_dsl.private_torch import DisableTorchFunctionSubclass, eval_frame_callback

_IN_PLACE = {
    f"__i{name}__" for name in "add sub mul div truediv floordiv mod pow matmul and or xor lshift rshift".split()
} | {"__setitem__", "__set__"}
# end in "_" but change no element
_HARMLESS = {"requires_grad_", "retain_grad_"}


class DenseView(torch.Tensor):
    """A dense copy of a sparse weight that behaves like a plain tensor, except that writing raises.

    The entries live in the sparse weight; an in-place change of the copy would vanish silently.
    What shares memory with the copy (``.data``, slices, ``.t()``) is protected as well; results with
    memory of their own are plain tensors. So is what is saved, pickled or deep-copied, and what ``nn.Parameter``
    makes of it is a parameter of the user's own.

    Raises:
        DSLError: on an in-place operation, an item assignment, or use as ``out=``; it names the line.
    """

    @classmethod
    def of(cls, dense: torch.Tensor) -> "DenseView":
        """``dense`` as one that is an ``nn.Parameter`` to ``isinstance``, as models ask for."""
        view = dense.as_subclass(cls)
        view.__dict__["_stands_for_parameter"] = True
        return view

    @property
    def _is_param(self) -> bool:
        return "_stands_for_parameter" in self.__dict__

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # nn.Parameter marks what it made, by detaching it, of a tensor that is not a plain one
        self.__class__ = nn.Parameter

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
        written = [*args[:1], *kwargs.values()] if _writes(name) else [kwargs.get("out")]
        if any(isinstance(argument, cls) for argument in written):
            raise DSLError(
                f"{calling_line()}: {name} would write into the dense copy of a sparse weight, where it is lost; "
                "change the weight before sparsify() or read it only"
            )
        with DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if torch.compiler.is_compiling():
                return result
            if isinstance(result, torch.Tensor) and result is not args[0] and _shares_memory(result, args):
                return result.as_subclass(cls)
        return result


def compiler_is_at_work() -> bool:
    """Whether ``torch.compile`` traces this, or what called it, so that it wants plain tensors."""
    return torch.compiler.is_compiling() or callable(eval_frame_callback())


def _plain(view: DenseView) -> torch.Tensor:
    with DisableTorchFunctionSubclass():
        return view.as_subclass(torch.Tensor)


def _writes(name: str) -> bool:
    if name.startswith("__"):
        return name in _IN_PLACE
    return name.endswith("_") and name not in _HARMLESS


def calling_line() -> str:
    """The line that called PyTorch, as ``file:number``."""
    inside = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(inside):
            break
    return f"{frame.filename}:{frame.lineno}"


def _shares_memory(result: torch.Tensor, args: tuple) -> bool:
    if result.layout is not torch.strided:
        return False
    storage = result.untyped_storage().data_ptr()
    return any(isinstance(arg, DenseView) and arg.untyped_storage().data_ptr() == storage for arg in args)
