"""Tensors with one number for each alive entry of a sparse weight, which refuse to mix different topologies."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recbole_dsl.errors import DSLError
from recbole_dsl.private_torch import DisableTorchFunctionSubclass, foreach_types
from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.reading import Reader, dense_gradient
from recbole_dsl.sparse.rewrite import Change, exchanged
from recbole_dsl.sparse.trees import leaves, map_only


class Weight(Protocol):
    """The part of `SparseWeight` that this module uses."""

    shape: torch.Size
    nnz: int
    values: nn.Parameter
    index: CompressedRows
    reader: Reader
    topology: Topology
    is_trained: bool

    def settle(self) -> None: ...
    def alive_in(self, start: int, stop: int) -> Tensor: ...
    def exchange(self, change: Change, nnz: int) -> None: ...


# return their argument, in the same memory or as a copy
_COPIES = set("detach clone to cpu cuda type float double half bfloat16 contiguous".split())
# work entry by entry: the result has the slots of the operands
_ENTRYWISE = set(
    "add sub rsub subtract mul multiply div divide true_divide lerp addcmul addcdiv neg copy where".split()
)
# describe a tensor, or set what does not depend on its elements
_DESCRIPTIONS = set(
    "shape size dim ndim numel nelement __len__ dtype device layout grad grad_fn requires_grad requires_grad_ "
    "is_leaf is_sparse is_floating_point is_complex is_cuda is_meta is_contiguous stride element_size nbytes "
    "register_hook register_post_accumulate_grad_hook new_zeros new_empty __hash__".split()
)
_GRADIENT = Tensor.grad.__get__
_OPERATORS = {f"__{kind}{name}__" for kind in ("", "r", "i") for name in "add sub mul div truediv".split()}


class Topology:
    """Identifies the set of alive entries of a weight.

    A weight gets another one when its topology changes. A copy of a weight has one of its own, until `equals`
    finds that both are of the same entries.
    """

    def __init__(self, weight: Weight):
        self._weights = weakref.WeakSet([weight])
        self._found_equal: Topology | None = None

    @property
    def itself(self) -> Topology:
        """The one that stands for all topologies that were found equal to this one."""
        return self if self._found_equal is None else self._found_equal.itself

    @property
    def weights(self) -> list[Weight]:
        """The weights that have this topology now."""
        return [weight for weight in self._weights if weight.topology.itself is self]

    def give_to(self, weight: Weight) -> None:
        self._weights.add(weight)
        weight.topology = self

    def equals(self, other: Topology) -> bool:
        """Whether both are of the same entries; if so, ``other`` stands for both from now on."""
        if self is other:
            return True
        if not self.weights or not other.weights:
            return False
        a, b = self.weights[0], other.weights[0]
        if a.shape != b.shape or a.nnz != b.nnz:
            return False
        pairs = ((getattr(one.index, name) for one in (a, b)) for name in ("row_offsets", "columns"))
        if not all(torch.equal(own, others.to(own.device)) for own, others in pairs):
            return False
        other._weights |= self._weights
        self._found_equal = other
        return True


class SlotTensor(Tensor):
    """The values of a sparse weight, or a view or a copy of them.

    It behaves like a plain tensor, with one exception. Adding, averaging or copying pairs two tensors entry by
    entry, and is refused if their topologies differ. Only a copy of a weight may be paired with the weight that is
    trained. A copy that is changed in place takes over the topology of the trained weight. Otherwise its entries
    are matched by position. The results of all other operations are plain tensors.

    Raises:
        DSLError: on an operation that pairs different topologies.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if any(getattr(kind, "comes_first", False) for kind in types):
            return NotImplemented
        kwargs = kwargs or {}
        if func == _GRADIENT:
            _show_gradient(args[0])
        elif not _reads_nothing(func):
            _settle((*args, *kwargs.values()))
        keeps, pairs, in_place = _kind(func)
        with DisableTorchFunctionSubclass():
            if not (keeps or pairs) or torch.compiler.is_compiling():
                return func(*args, **kwargs)
            groups = _groups(args, kwargs) if pairs else [args[:1]]
            aligned: dict[int, Tensor] = {}
            topologies = [_common(group, in_place, aligned) for group in groups]
            if aligned:
                args, kwargs = map_only(Tensor, lambda t: aligned.get(id(t), t), (args, kwargs))
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and keeps:
                return _marked(result, args[0], topologies[0])
            if isinstance(result, (list, tuple)) and len(result) == len(groups) and keeps:
                return type(result)(_marked(r, group[0], t) for r, group, t in zip(result, groups, topologies))
            return result

    @property
    def topology(self) -> Topology | None:
        """The current topology of the weight that owns the memory; of a copy, the one at the time of copying."""
        weight = _owner_of(self)
        topology = vars(self).get("_topology") if weight is None else weight.topology
        return None if topology is None else topology.itself

    @property
    def _is_param(self) -> bool:
        return False

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        # nn.Parameter sets this on the detached copy that it makes of a tensor subclass
        vars(self).clear()
        self.__class__ = nn.Parameter

    def __reduce_ex__(self, protocol):
        return unmarked(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        plain = unmarked(self)
        with DisableTorchFunctionSubclass():
            copied = plain.detach().clone()
        if isinstance(self, Values):
            copied = nn.Parameter(copied, self.requires_grad)
        elif self.topology is not None:
            copied = _with(copied, _topology=self.topology)
        memo[id(self)] = copied
        return copied


class Values(SlotTensor, nn.Parameter):
    """The values of a sparse weight."""


# optimizers use their fast kernels only for the types in this list; for others they are correct, but slower
foreach_types.append(Values)


def mark(parameter: nn.Parameter, weight: Weight) -> nn.Parameter:
    """``parameter``, turned in place into the `Values` of ``weight``."""
    parameter.__class__ = Values
    vars(parameter)["_owner"] = weakref.ref(weight)
    return parameter


def unmarked(tensor: Tensor) -> Tensor:
    """``tensor`` as a plain tensor or parameter that shares its memory."""
    if not isinstance(tensor, SlotTensor):
        return tensor
    _settle([tensor])
    with DisableTorchFunctionSubclass():
        plain = tensor.detach().as_subclass(Tensor)
        return nn.Parameter(plain, tensor.requires_grad) if isinstance(tensor, Values) else plain


@cache
def _reads_nothing(func: Callable) -> bool:
    """Whether ``func`` is known not to read the elements of a tensor."""
    if getattr(func, "__name__", "") in ("__get__", "__set__", "__delete__"):
        return getattr(func.__self__, "__name__", "") in _DESCRIPTIONS
    return getattr(func, "__name__", "") in _DESCRIPTIONS


def _settle(operands: Sequence[Any]) -> None:
    """Do what optimizers have postponed for the weights whose values are among ``operands``."""
    for operand in leaves(operands):
        weight = _owner_of(operand) if isinstance(operand, Values) else None
        if weight is not None:
            weight.settle()


def _show_gradient(values: Tensor) -> None:
    """Make the gradient of ``values`` dense if it is read before the step, to be clipped, scaled or inspected."""
    weight = _owner_of(values)
    pending = weight.reader.pending if weight is not None else None
    if pending is None:
        return
    with DisableTorchFunctionSubclass():
        gradient = values.grad
        if gradient is not None and gradient.is_sparse and not pending.has_taken(gradient):
            values.grad = dense_gradient(gradient)


def _owner_of(tensor: Tensor) -> Weight | None:
    """The weight that owns the memory of ``tensor``, or None."""
    owner = vars(tensor).get("_owner") if isinstance(tensor, SlotTensor) else None
    return owner() if owner is not None else None


@cache
def _kind(func: Callable) -> tuple[bool, bool, bool]:
    """Whether ``func`` keeps the slots of its operands, whether it pairs them, and whether it works in place."""
    name = getattr(func, "__name__", "").removeprefix("_foreach_")
    if name in ("__get__", "__set__"):
        is_data = getattr(func, "__self__", None) == Tensor.data
        return is_data and name == "__get__", is_data and name == "__set__", name == "__set__"
    if name in _OPERATORS or name == "stack":
        return name != "stack", True, name.startswith("__i")
    bare = name.rstrip("_")
    return bare in _COPIES or bare in _ENTRYWISE, bare in _ENTRYWISE, bare != name


def _groups(args: tuple, kwargs: dict[str, Any]) -> list[list[Tensor]]:
    """The groups of tensors that are paired: those at the same index of lists, or else all."""
    operands = [*args, *kwargs.values()]
    lists = [o for o in operands if isinstance(o, (list, tuple)) and o and isinstance(o[0], Tensor)]
    if len(lists) == 1 and len(args) == 1:
        return [list(lists[0])]
    if lists:
        return [list(group) for group in zip(*lists)]
    return [[o for o in operands if isinstance(o, Tensor)]]


def _common(group: list[Tensor], in_place: bool, aligned: dict[int, Tensor]) -> Topology | None:
    """The topology that ``group`` has in common; None if no tensor has one.

    A tensor with another topology is put in the order of the common one, in ``aligned`` by its id.

    Raises:
        DSLError: if topologies differ, and not because of a copy of the weight that is trained.
    """
    slotted = [tensor for tensor in group if isinstance(tensor, SlotTensor) and tensor.topology is not None]
    found: list[Topology] = []
    for tensor in slotted:
        if not any(tensor.topology.equals(other) for other in found):
            found.append(tensor.topology)
    if len(found) < 2:
        return found[0] if found else None
    if in_place and len(found) == 2 and _follow(group[0], found):
        return group[0].topology
    trained = [weight for topology in found for weight in topology.weights if weight.is_trained]
    target = (
        trained[0].topology.itself if len(trained) == 1 and all(topology.weights for topology in found) else None
    )
    if target is None or (in_place and group[0].topology is not target):
        raise DSLError(
            "sparse values of different topologies cannot be paired entry by entry: average in place into the "
            "parameters of a copy.deepcopy of the model (average.lerp_(current, share)), as "
            "torch.optim.swa_utils.AveragedModel does, with budget=uniform or erk"
        )
    for tensor in slotted:
        if tensor.topology is not target:
            aligned[id(tensor)] = _in_order_of(trained[0], tensor)
    return target


def _in_order_of(weight: Weight, tensor: SlotTensor) -> Tensor:
    """``tensor`` in the order of the slots of ``weight``: (nnz,), zero where it has no entry."""
    weights = tensor.topology.weights[0], weight
    before, after = (one.index.positions().to(tensor.device) for one in weights)
    slots = torch.searchsorted(before, after).clamp_(max=len(before) - 1)
    plain = unmarked(tensor).detach().index_select(0, slots)
    return plain.masked_fill_(before[slots] != after, 0)


def _follow(tensor: Tensor, topologies: list[Topology]) -> bool:
    """Give the weight of ``tensor`` the other of ``topologies``, by position; False if that cannot be done."""
    weight = _owner_of(tensor)
    target = [topology for topology in topologies if weight is not None and topology is not weight.topology.itself]
    leader = next(iter(target[0].weights), None) if len(target) == 1 else None
    if leader is None or leader.shape != weight.shape or leader.nnz != weight.nnz:
        return False
    if weight.is_trained or weight.values.grad is not None:
        return False
    blocks = list(leader.index.blocks())
    device = weight.values.device

    def change(number: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        return exchanged(positions, leader.alive_in(*blocks[number][:2]).view(-1).to(device))

    weight.exchange(change, leader.nnz)
    target[0].give_to(weight)
    return True


def _marked(result: Tensor, operand: Any, topology: Topology | None) -> Tensor:
    if (
        result is operand
        or isinstance(result, SlotTensor)
        or result.requires_grad
        or result.layout != torch.strided
    ):
        is_copy = result is operand and type(result) is Tensor and not result.requires_grad
        if is_copy and topology is not None and result.dim() == 1:
            result.__class__ = SlotTensor
            vars(result)["_topology"] = topology
        return result
    owner = vars(operand).get("_owner") if isinstance(operand, SlotTensor) else None
    if owner is not None and result.data_ptr() == operand.data_ptr() and result.shape == operand.shape:
        return _with(result, _owner=owner)
    return result if topology is None or result.dim() != 1 else _with(result, _topology=topology)


def _with(tensor: Tensor, **marks: Any) -> Tensor:
    marked = tensor.as_subclass(SlotTensor)
    vars(marked).update(marks)
    return marked
