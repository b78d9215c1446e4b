"""Large tables that record their initialisation, so that only their alive entries have to be drawn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recbole_dsl.errors import DSLError
from recbole_dsl.private_torch import (
    HAS_WRAPPERS,
    DisableTorchFunctionSubclass,
    forbid_data_pointer,
    make_wrapper_subclass,
)
from recbole_dsl.sparse.parameter_sites import find_sites
from recbole_dsl.sparse.trees import leaves, map_only
from recbole_dsl.sparse.view import calling_line

# tables with fewer entries are made at once
SMALLEST = 2**20

aten = torch.ops.aten
# replace every entry, by draws from one distribution or by one constant
_DRAWS = {aten.normal_, aten.uniform_, aten.zero_, aten.fill_}
# change each entry by itself: scale, shift or clip what was drawn
_ENTRYWISE = _DRAWS | {aten.mul_, aten.add_, aten.sub_, aten.div_, aten.clamp_, aten.erfinv_}


@contextmanager
def deferred_tables() -> Iterator[None]:
    """Within it, large matrices that a model's constructor creates take no memory until `sparsify`.

        with deferred_tables():
            model = BPR(config, dataset)
        sparsify(model, dsl_config)

    Their initialisation is recorded. If all entries come from one distribution, `sparsify` draws only the alive
    ones. Any other initialisation is run on a dense table, one weight at a time. A table is computed earlier if
    its values are read, or if other values are written into it.
    """
    with _DeferEmpty() if HAS_WRAPPERS else nullcontext():
        yield


class _DeferEmpty(TorchFunctionMode):
    """Lets ``torch.empty``, with which PyTorch's modules allocate their weights, return deferred tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.empty and len(args) == 1 and isinstance(args[0], (tuple, list, torch.Size)):
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            device = torch.device(kwargs.get("device") or torch.get_default_device())
            others = {name for name, value in kwargs.items() if value} - {"dtype", "device"}
            shape = torch.Size(args[0])
            is_large = len(shape) == 2 and shape.numel() >= SMALLEST
            if is_large and not others and dtype.is_floating_point and device.type == "cpu":
                return DeferredTensor(shape, dtype)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class _Operation:
    """A recorded in-place operation on a view of a deferred tensor."""

    views: tuple[Callable[[Tensor], Tensor], ...]
    func: Any
    args: tuple
    kwargs: dict
    on_all: bool

    def run(self, tensor: Tensor) -> None:
        self.func(_through(self.views, tensor), *self.args, **self.kwargs)

    @property
    def is_draw(self) -> bool:
        return self.on_all and self.func.overloadpacket in _DRAWS

    @property
    def is_entrywise(self) -> bool:
        return self.on_all and self.func.overloadpacket in _ENTRYWISE

    @property
    def brings_values(self) -> bool:
        """Whether it writes anything but constants and draws from the default generator."""
        return any(
            isinstance(value, torch.Generator) or (isinstance(value, Tensor) and value.dim() > 0)
            for value in leaves((self.args, self.kwargs))
        )

    def zeroes_only(self, row: int, shape: torch.Size) -> bool:
        zero = self.func.overloadpacket is aten.zero_ or (
            self.func.overloadpacket is aten.fill_ and float(self.args[0]) == 0
        )
        rows = torch.arange(shape[0]).unsqueeze(1).expand(shape)
        return zero and not self.on_all and bool((_through(self.views, rows) == row).all())


class DeferredTensor(Tensor):
    """A floating-point matrix on the CPU that takes no memory yet, or a view of one.

    Writes of random or constant values are recorded. Any other operation, and any access to its memory
    (``numpy()``, ``data_ptr()``, ...), computes the values, which are then kept.

    Attributes:
        root: the matrix that this is a view of, or itself.
        views: the operations that lead from the root to this view, in order.
        is_view: whether it was created as a view.
        record: of a root, the in-place operations that its values result from.
        made: of a root, its values, once they are computed.

    Raises:
        DSLError: on an operation that would change its shape, dtype or device in place; it names the line.
    """

    @staticmethod
    def __new__(cls, shape, dtype, root=None, views=()):
        made = make_wrapper_subclass(cls, shape, dtype=dtype, device="cpu")
        # code that bypasses PyTorch's functions to reach the missing memory gets an error instead of a crash
        forbid_data_pointer(made)
        return made

    def __init__(self, shape, dtype, root: "DeferredTensor | None" = None, views: tuple[Callable, ...] = ()):
        self.root = self if root is None else root
        self.views, self.is_view = views, bool(views)
        self.record: list[_Operation] = []
        self.made: Tensor | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)})"

    def __deepcopy__(self, memo):
        # the copy must have the same values, so they are drawn now
        memo[id(self)] = copied = self._as_own_kind(_holding(self.values().clone()))
        return copied

    def __reduce_ex__(self, protocol):
        return self._as_own_kind(self.values().clone()).__reduce_ex__(protocol)

    def _as_own_kind(self, tensor: Tensor) -> Tensor:
        return nn.Parameter(tensor, self.requires_grad) if isinstance(self, nn.Parameter) else tensor

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in _NEW_DATA and args and isinstance(args[0], DeferredTensor):
            args[0]._become("data", args[1])
            return None
        if func in _MEMORY:
            args = map_only(DeferredTensor, DeferredTensor.values, args)
        with DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        own, others = args[0] if args else None, (args[1:], kwargs)
        if isinstance(own, DeferredTensor) and func.overloadpacket is aten.set_:
            is_tensor = func is aten.set_.source_Tensor
            own._become(
                "set_", args[1] if is_tensor else func(torch.empty(0, dtype=own.dtype), *args[1:], **kwargs)
            )
            return own
        if isinstance(own, DeferredTensor) and func.overloadpacket is aten.detach_:
            return own
        if isinstance(own, DeferredTensor) and torch.Tag.inplace_view in func.tags:
            raise _no_such_change(func.overloadpacket.__name__)
        if isinstance(own, DeferredTensor) and not any(isinstance(v, DeferredTensor) for v in leaves(others)):
            alias = func._schema.arguments[0].alias_info
            returned = func._schema.returns
            if alias is not None and alias.is_write:
                own._write(func, *others)
                return own
            if alias is not None and len(returned) == 1 and str(returned[0].type) == "Tensor":
                return own._view(func, *others)
        args, kwargs = map_only(DeferredTensor, DeferredTensor.values, (args, kwargs))
        return func(*args, **kwargs)

    def values(self) -> Tensor:
        """The values, computed at the first call and kept."""
        root = self.root
        if root.made is None:
            root.made = realise(root)
        return _through(self.views, root.made)

    def _view(self, func, args, kwargs) -> "DeferredTensor":
        like = func(torch.empty(self.shape, dtype=self.dtype, device="meta"), *args, **kwargs)
        if like.dtype != self.dtype:
            return func(self.values(), *args, **kwargs)
        views = (*self.views, lambda tensor: func(tensor, *args, **kwargs))
        return DeferredTensor(like.shape, self.dtype, self.root, views)

    def _write(self, func, args, kwargs) -> None:
        root = self.root
        # a zero-dimensional tensor may change before the operation is run
        args, kwargs = map_only(Tensor, lambda t: t if t.dim() else t.clone(), (args, kwargs))
        operation = _Operation(self.views, func, args, kwargs, self._is_all())
        if operation.brings_values or root.made is not None:
            self.values()
            operation.run(root.made)
            return
        if operation.is_draw:
            root.record.clear()
        root.record.append(operation)

    def _is_all(self) -> bool:
        """Whether this view has every entry of the root exactly once."""
        view = self._like()
        return view.numel() == self.root.numel() and 0 not in view.stride()

    def is_root(self) -> bool:
        """Whether this view has every entry of the root, in the same layout."""
        root, view = torch.empty(self.root.shape, device="meta"), self._like()
        return (view.shape, view.stride()) == (root.shape, root.stride())

    def _like(self) -> Tensor:
        return _through(self.views, torch.empty(self.root.shape, device="meta"))

    def _become(self, name: str, other: Any) -> None:
        """Share the memory of ``other`` from now on, as after ``self.data = other``."""
        if self.is_view and not isinstance(self, nn.Parameter):
            raise DSLError(
                f"{calling_line()}: {name} would change what .data, .detach() or a slice returned, but not the "
                "table; write into it (copy_), or set the data of the parameter"
            )
        same = isinstance(other, Tensor) and (other.shape, other.dtype) == (self.shape, self.dtype)
        if not same or other.device != self.device or other.layout is not torch.strided:
            raise _no_such_change(name)
        other = other.detach()
        if not isinstance(other, DeferredTensor):
            other = _holding(other)
        self.root, self.views = other.root, other.views


# functions after which a tensor shares the memory of another
_NEW_DATA = {Tensor.data.__set__}
# functions that expose the memory of a tensor, which may then be written to
_MEMORY = {
    getattr(Tensor, name)
    for name in (
        *("numpy", "__array__", "data_ptr", "untyped_storage", "storage", "_typed_storage", "__dlpack__"),
        *("tolist", "share_memory_", "pin_memory", "is_shared", "__dlpack_device__", "apply_", "map_", "map2_"),
    )
    if hasattr(Tensor, name)
}


def _holding(values: Tensor) -> DeferredTensor:
    """A deferred tensor that has its ``values`` already, in the same memory."""
    deferred = DeferredTensor(values.shape, values.dtype)
    deferred.made = values.as_subclass(Tensor)
    return deferred


def _no_such_change(name: str) -> DSLError:
    return DSLError(
        f"{calling_line()}: {name} would change the shape, dtype, device or storage of a deferred table in place; "
        "create a new nn.Parameter instead, or the model without deferred_tables()"
    )


def _through(views: tuple[Callable[[Tensor], Tensor], ...], tensor: Tensor) -> Tensor:
    for view in views:
        tensor = view(tensor)
    return tensor


def make_the_rest(model: nn.Module) -> None:
    """Compute every deferred tensor that is left in ``model``: those that stay dense."""
    sites = find_sites(model)
    for name, parameter in sites.parameters.items():
        if isinstance(parameter, DeferredTensor):
            made = nn.Parameter(realise(parameter), parameter.requires_grad)
            for module, attribute in sites.owners[name]:
                setattr(module, attribute, made)
    for module in model.modules():
        for held in (module._buffers, vars(module)):
            for name in [name for name, value in held.items() if isinstance(value, DeferredTensor)]:
                held[name] = held[name].values()


def realise(tensor: Tensor) -> Tensor:
    """The values of ``tensor``; those of a deferred one that keeps none are drawn for this call."""
    if not isinstance(tensor, DeferredTensor):
        return tensor.detach()
    root = tensor.root
    if root.made is not None:
        return tensor.values()
    made = torch.empty(root.shape, dtype=root.dtype)
    for operation in root.record:
        operation.run(made)
    return _through(tensor.views, made)


def draw_entries(tensor: Tensor, values: Tensor, empty_row: int | None = None) -> bool:
    """Draw ``values`` (n,), in place, from the distribution of all the initial entries of a deferred ``tensor``.

    Args:
        empty_row: a row without alive entries; an operation that only zeroes it is passed over.

    Returns:
        Whether there is one such distribution; ``values`` do not change otherwise.
    """
    if not isinstance(tensor, DeferredTensor) or tensor.root.made is not None or not tensor.is_root():
        return False
    root = tensor.root
    record = [
        operation
        for operation in root.record
        if empty_row is None or operation.on_all or not operation.zeroes_only(empty_row, root.shape)
    ]
    if not record or not record[0].is_draw or not all(operation.is_entrywise for operation in record):
        return False
    for operation in record:
        operation.func(values, *operation.args, **operation.kwargs)
    return True
