"""Columns of a sequential data set that are computed when they are read, from one flat column each."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# entries that are cut at a time; their indices take 32 MB
_ENTRIES = 2**22


@dataclass(frozen=True)
class Spans:
    """The part of a flat column that each row consists of; what follows it is the row's target.

    Attributes:
        starts: (rows,), of any integer type.
        lengths: (rows,), of any integer type.
    """

    starts: Tensor
    lengths: Tensor

    def some(self, rows: slice) -> "Spans":
        """Those of ``rows``."""
        return Spans(self.starts[rows], self.lengths[rows])


@dataclass(frozen=True, eq=False)
class LazyColumn:
    """A column that is computed from spans when it is read."""

    spans: Spans

    @property
    def shape(self) -> torch.Size:
        """That of RecBole's column, one number a row unless a kind says otherwise."""
        return self.spans.starts.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def device(self) -> torch.device:
        return self.spans.starts.device

    def cut(self) -> Tensor:
        """The column of ``shape`` that RecBole would have."""
        raise NotImplementedError

    def to(self, device: Any) -> "LazyColumn | Tensor":
        """Itself on its own device; the cut column on another one."""
        return self if torch.device(device) == self.device else self.cut().to(device)

    def __deepcopy__(self, memo: dict) -> "LazyColumn":
        return self

    def __reduce__(self) -> tuple:
        return _itself, (self.cut(),)


class Lengths(LazyColumn):
    """The lengths of the histories."""

    def cut(self) -> Tensor:
        # never the tensor of the spans, which others share
        return self.spans.lengths.to(torch.int64, copy=True)


@dataclass(frozen=True, eq=False)
class FlatColumn(LazyColumn):
    """A column whose rows come from a flat column.

    Attributes:
        flat: (interactions, ...), never changed.
    """

    flat: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.flat.dtype


class Targets(FlatColumn):
    """The entries that follow the histories."""

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.spans.starts.shape, *self.flat.shape[1:]))

    def cut(self) -> Tensor:
        places = self.spans.starts.long() + self.spans.lengths
        return self.flat.index_select(0, places.flatten()).view(self.shape)


@dataclass(frozen=True, eq=False)
class Histories(FlatColumn):
    """A column whose rows are parts of a flat column, padded with zeros.

    Attributes:
        shape_of_row: (longest part, ...), the shape of a row in RecBole's column.
    """

    shape_of_row: tuple[int, ...]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.spans.starts.shape, *self.shape_of_row))

    def cut(self) -> Tensor:
        if not self.shape.numel():
            return self.flat.new_zeros(self.shape)
        found = self.flat.new_empty(self.shape)
        longest, *rest = self.shape_of_row
        rows = max(1, _ENTRIES // longest)
        blocks = zip(*(part.flatten().split(rows) for part in (self.spans.starts, self.spans.lengths)))
        steps = torch.arange(longest)
        for block, (starts, lengths) in zip(found.view(-1, longest, *rest).split(rows), blocks):
            places = (starts[:, None] + steps).clamp_(max=len(self.flat) - 1)
            torch.index_select(self.flat, 0, places.flatten(), out=block.view(-1, *rest))
            block.masked_fill_((steps >= lengths[:, None]).view(-1, longest, *[1] * len(rest)), 0)
        return found

    def __reduce__(self) -> tuple:
        # a worker sends a batch, which is far smaller than the flat column
        if self.shape.numel() <= self.flat.numel():
            return super().__reduce__()
        return Histories, (self.spans, self.flat, self.shape_of_row)


class Columns(MutableMapping, dict):
    """Columns by name, which RecBole takes for a dict; a lazy one is cut at the first access, and kept."""

    def __getitem__(self, name: str) -> Tensor:
        value = dict.__getitem__(self, name)
        if isinstance(value, LazyColumn):
            value = self[name] = value.cut()
        return value

    __setitem__, __delitem__, __contains__ = dict.__setitem__, dict.__delitem__, dict.__contains__
    __len__, clear = dict.__len__, dict.clear

    def __iter__(self) -> Iterator[str]:
        # PyTorch and Python bypass `__getitem__` if this is dict's own
        return dict.__iter__(self)

    def copy(self) -> dict[str, Tensor]:
        return dict(self)

    def __or__(self, other: Any) -> dict[str, Tensor]:
        return dict(self) | other

    def __ror__(self, other: Any) -> dict[str, Tensor]:
        return other | dict(self)

    def uncut(self) -> dict[str, Any]:
        """The columns, without cutting any."""
        return dict(zip(dict.keys(self), dict.values(self)))

    def __reduce__(self) -> tuple:
        return Columns, (self.uncut(),)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return self.__reduce__()


def column_of(feat: Any, name: str, rows: slice | None = None) -> Any:
    """The column ``name`` of the features ``feat``, or some ``rows``; a lazy one is not kept there."""
    # other tables may record what is read of them by name
    uncut = getattr(type(feat), "uncut_column", None)
    value = uncut(feat, name) if uncut else feat[name]
    if rows is not None:
        is_lazy = isinstance(value, LazyColumn)
        value = replace(value, spans=value.spans.some(rows)) if is_lazy else value[rows]
    return value.cut() if isinstance(value, LazyColumn) else value


def _itself(value: Tensor) -> Tensor:
    return value
