"""The dense form of a sparse weight, protected from writes that would be lost."""

import os
import traceback

import torch

from recbole_dsl.errors import DSLError

_IN_PLACE = {
    f"__i{name}__" for name in "add sub mul div truediv floordiv mod pow matmul and or xor lshift rshift".split()
} | {"__setitem__", "__set__"}
# end in "_" but change no element
_HARMLESS = {"requires_grad_", "retain_grad_"}


class DenseView(torch.Tensor):
    """A dense copy of a sparse weight that behaves like a plain tensor, except that writing raises.

    The entries live in the sparse weight; an in-place change of the copy would vanish silently.
    What shares memory with the copy (``.data``, slices, ``.t()``) is protected as well; results with
    memory of their own are plain tensors.

    Raises:
        DSLError: on an in-place operation, an item assignment, or use as ``out=``; it names the line.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        written = [*args[:1], *kwargs.values()] if _writes(name) else [kwargs.get("out")]
        if any(isinstance(argument, cls) for argument in written):
            raise DSLError(
                f"{_calling_line()}: {name} would write into the dense copy of a sparse weight, where it is lost; "
                "change the weight before sparsify() or read it only"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if isinstance(result, torch.Tensor) and _shares_memory(result, args):
                return result.as_subclass(cls)
        return result


def _writes(name: str) -> bool:
    if name.startswith("__"):
        return name in _IN_PLACE
    return name.endswith("_") and name not in _HARMLESS


def _calling_line() -> str:
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
