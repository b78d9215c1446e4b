"""Which parameters bring values with them, as it is seen while a model is made."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_dsl.private_torch import SEES_ALL, StorageWeakRef, TorchDispatchMode, on_parameter_registration
from recbole_dsl.sparse.trees import leaves

aten = torch.ops.aten


def _packets(names: str) -> set[Any]:
    return {getattr(aten, name) for name in names.split() if hasattr(aten, name)}


# give every entry a random value, or all the same
_DRAWS = _packets("normal_ uniform_ zero_ fill_ exponential_ cauchy_ log_normal_ geometric_ bernoulli_")
_EMPTY = _packets("empty empty_strided empty_like new_empty new_empty_strided")
_NEW = _EMPTY | _packets(
    "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full rand rand_like randn randn_like"
)
# in which whole numbers and truth values say where, not what
_LOCATED = _packets(
    "index_put_ _index_put_impl_ index_fill_ masked_fill_ scatter_ index_copy_ index_add_ masked_scatter_ "
    "index_put index gather index_select masked_select embedding masked_fill where"
)


@contextmanager
def watched_parameters() -> Iterator[None]:
    """Within it, note of each parameter that a module gets whether it holds values of another source.

    What is random or constant, and what is computed from nothing else, is an initialisation. Everything else
    (data, files, NumPy, tensors that were there before, patterns) is a value that the parameter brings with it;
    see `brings_values`. So is all that ``nn.Embedding.from_pretrained`` is given. Not seen are writes past
    PyTorch, into an array of NumPy that shares the memory, say.
    """
    if not SEES_ALL:
        yield
        return
    watch = _Watch()
    registered: list[nn.Parameter] = []
    mine = get_ident()

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        # PyTorch calls it for the modules of every thread
        if parameter is None or parameter.dim() < 2 or get_ident() != mine:
            return
        registered.append(parameter)
        is_first = isinstance(module, nn.Embedding) and name == "weight" and name not in module._parameters
        if is_first and not watch.is_empty(parameter):
            # of Embedding.from_pretrained; a table of its own is filled later
            note_values(parameter)

    hook = on_parameter_registration(register)
    before = _numpy_state()
    try:
        with watch:
            yield
    finally:
        hook.remove()
    if _numpy_state() != before:
        # what comes of NumPy may be random too, which is to be found out otherwise
        return
    for parameter in registered:
        if not watch.is_initial(parameter):
            note_values(parameter)


def note_values(parameter: nn.Parameter) -> None:
    """Note that ``parameter`` brings values with it."""
    parameter._brings_values = True


def brings_values(parameter: nn.Parameter) -> bool:
    """Whether that was noted."""
    return getattr(parameter, "_brings_values", False)


class _Watch(TorchDispatchMode or object):
    """Follows which memory holds nothing but an initialisation."""

    def __init__(self):
        super().__init__()
        # while it is referred to, weakly even, no other storage has the same number
        self._kept: list[Any] = []
        self._initial: dict[int, bool] = {}
        self._empty: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        arguments = {a.name: value for a, value in zip(func._schema.arguments, args)} | kwargs
        written, read = [], []
        for argument in func._schema.arguments:
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            tensors = [t for t in leaves(arguments.get(argument.name)) if isinstance(t, Tensor) and t.dim()]
            (written if is_written else read).extend(tensors)
        if packet in _LOCATED:
            read = [tensor for tensor in read if tensor.is_floating_point() or tensor.is_complex()]
        others_are_initial = all(map(self.is_initial, read))
        for tensor in written:
            self._empty.difference_update(key for key, _, _ in _memory_of(tensor))
            if not others_are_initial:
                self._note(tensor, False)
            elif packet in _DRAWS and _is_whole(tensor):
                self._note(tensor, True)
        if not written:
            is_initial = packet in _NEW or ((bool(read) or packet is aten.normal) and others_are_initial)
            for tensor in leaves(out):
                if isinstance(tensor, Tensor) and not self._knows(tensor):
                    self._note(tensor, is_initial)
                    if packet in _EMPTY:
                        self._empty.update(key for key, _, _ in _memory_of(tensor))
        return out

    def is_empty(self, tensor: Tensor) -> bool:
        """Whether nothing has been written into it yet."""
        root = getattr(tensor, "root", None)
        if isinstance(root, Tensor):
            return root.made is None and not root.record
        return all(key in self._empty for key, _, _ in _memory_of(tensor))

    def is_initial(self, tensor: Tensor) -> bool:
        memory = _memory_of(tensor)
        return bool(memory) and all(self._initial.get(key, unknown) for key, _, unknown in memory)

    def _knows(self, tensor: Tensor) -> bool:
        return all(key in self._initial for key, _, _ in _memory_of(tensor))

    def _note(self, tensor: Tensor, is_initial: bool) -> None:
        for key, reference, _ in _memory_of(tensor):
            if key not in self._initial:
                self._kept.append(reference)
            self._initial[key] = is_initial


def _memory_of(tensor: Tensor) -> list[tuple[int, Any, bool]]:
    """For each memory of it: its number, what keeps that, and whether it is initial if nothing is known."""
    if tensor.layout is not torch.strided:
        return []
    root = getattr(tensor, "root", None)
    if not isinstance(root, Tensor):
        return [(*_of_storage(tensor), False)]
    # a deferred table, that may have memory by now: made from its record, or of another tensor
    return [(id(root), root, True), *([] if root.made is None else [(*_of_storage(root.made), bool(root.record))])]


def _of_storage(tensor: Tensor) -> tuple[int, Any]:
    reference = StorageWeakRef(tensor.untyped_storage())
    return reference.cdata, reference


def _is_whole(tensor: Tensor) -> bool:
    root = getattr(tensor, "root", None)
    if isinstance(root, Tensor):
        return tensor.numel() == root.numel()
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _numpy_state() -> tuple:
    kind, keys, *rest = np.random.get_state()
    return kind, keys.tobytes(), *rest
