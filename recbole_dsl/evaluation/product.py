"""Detects whether a model's scores of all items are one product of vectors, by tracing how it computes them."""

from itertools import chain
from typing import Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_dsl.private_torch import DispatchMode, TorchDispatchMode

_aten = torch.ops.aten
# return the same scores in another shape
_RESHAPES = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.unsqueeze.default,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.detach.default,
    _aten.alias.default,
}


# pairs whose vectors are gathered at once; more would be new memory each time, which takes six times as long
_GATHERED = 2**12
# beyond this, a score may not fit into float32
LARGEST = 1e30


class Operands(NamedTuple):
    """The vectors that a model multiplies: its scores are ``users @ items``.

    Attributes:
        users: (n, columns) float32.
        items: (columns, n_items) float32, transposed as the model has it.
    """

    users: Tensor
    items: Tensor


def operands_of(model: nn.Module, interaction: Interaction, n_items: int) -> Operands | None:
    """The vectors that ``full_sort_predict`` multiplies for ``interaction``; None if it is not one product.

    The method runs as it is, except that the product of (n, columns) and (columns, n_items) is not computed. A
    tensor without memory takes its place. It has to be the result, in any shape, without another operation on it.
    So the answer holds for every user of ``interaction``, whatever the model.
    """
    if TorchDispatchMode is None:
        return None
    seen = _Product(len(interaction), n_items)
    try:
        with seen:
            result = model.full_sort_predict(interaction)
    except Exception:
        # an error of the model's own comes again when its scores are computed
        return None
    return seen.operands if seen.is_result(result) else None


def products(operands: Operands, of: Tensor, items: Tensor) -> Tensor:
    """(pairs,): the products of the vectors ``of`` users and of ``items``, which are (pairs,) int64."""
    vectors = operands.items.t().contiguous()
    parts = [
        operands.users.index_select(0, some).mul_(vectors.index_select(0, theirs)).sum(1)
        for some, theirs in zip(of.split(_GATHERED), items.split(_GATHERED))
    ]
    return torch.cat(parts)


class Rounding:
    """How far the difference of two scores may be off, however the products are summed, or if they are exact.

    The norms of all items are computed once for the same items.
    """

    def __init__(self) -> None:
        self._items: Tensor | None = None
        self._version = -1
        self.longest = 0.0

    def take(self, items: Tensor) -> bool:
        """Whether ``items`` (columns, n_items) are others than before; ``longest`` is then the largest norm."""
        before = self._items
        if before is not None and (before is items or before.data_ptr() == items.data_ptr()):
            if self._version == items._version:
                return False
        elif before is not None and self._version == before._version and torch.equal(before, items):
            # the next look at them compares no entries
            self._items, self._version = items, items._version
            return False
        # kept alive, so that its memory is not reused
        self._items, self._version = items, items._version
        self.longest = float(torch.linalg.vector_norm(items, dim=0).max())
        return True

    def margins(self, operands: Operands) -> Tensor | None:
        """(n,): of the scores of each user; None if some may be NaN or too large for float32."""
        self.take(operands.items)
        margins = torch.linalg.vector_norm(operands.users, dim=1) * self.longest
        if not bool((margins < LARGEST).all()):
            return None
        return margins.mul_(4 * (len(operands.items) + 2) * 2.0**-24)


class _OtherUse(Exception):
    """Raised if the product is used otherwise than as the result."""


class _Product(DispatchMode):
    def __init__(self, n: int, n_items: int):
        super().__init__()
        self._shape = n, n_items
        self.operands: Operands | None = None
        self._stand_in: Tensor | None = None
        self._is_refused = False

    def is_result(self, result: Any) -> bool:
        is_whole = self._is_stand_in(result) and result.numel() == self._shape[0] * self._shape[1]
        return is_whole and not self._is_refused

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self._stand_in is not None:
            lists = (value if isinstance(value, (list, tuple)) else [value] for value in (*args, *kwargs.values()))
            if any(map(self._is_stand_in, chain.from_iterable(lists))):
                if func not in _RESHAPES:
                    self._refuse()
                return func(*args, **kwargs)
        if func is not _aten.mm.default or (args[0].shape[0], args[1].shape[1]) != self._shape:
            return func(*args, **kwargs)
        if self._stand_in is not None or {args[0].dtype, args[1].dtype} != {torch.float32}:
            self._refuse()
        self.operands = Operands(*args)
        self._stand_in = args[0].new_empty(1).expand(self._shape)
        return self._stand_in

    def _refuse(self) -> None:
        # the model may catch the exception
        self._is_refused = True
        raise _OtherUse

    def _is_stand_in(self, value: Any) -> bool:
        return (
            self._stand_in is not None
            and isinstance(value, Tensor)
            and value.layout is torch.strided
            and value.untyped_storage().data_ptr() == self._stand_in.untyped_storage().data_ptr()
        )
