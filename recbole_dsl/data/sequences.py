"""Histories of sequential models, cut from one flat column when they are read.

Importing this changes RecBole's ``SequentialDataset``, which writes out every prefix of every history otherwise.
"""

import functools
from collections.abc import Callable, Container, Iterator, MutableMapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dsl.checkpoint.tokens import smallest
from recbole_dsl.data.batches import places_of
from recbole_dsl.patching import changes

# entries that are cut at a time; their indices take 32 MB
_ENTRIES = 2**22


@dataclass(frozen=True)
class Spans:
    """The part of a flat column that each row consists of.

    Attributes:
        starts: (rows,), of any integer type.
        lengths: (rows,), of any integer type.
    """

    starts: Tensor
    lengths: Tensor


@dataclass(frozen=True, eq=False)
class Histories:
    """A column whose rows are parts of a flat column, padded with zeros.

    Attributes:
        flat: (interactions, ...), never changed.
        shape_of_row: (longest part, ...), the shape of a row in RecBole's column.
    """

    flat: Tensor
    spans: Spans
    shape_of_row: tuple[int, ...]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((*self.spans.starts.shape, *self.shape_of_row))

    @property
    def dtype(self) -> torch.dtype:
        return self.flat.dtype

    @property
    def device(self) -> torch.device:
        return self.flat.device

    def cut(self) -> Tensor:
        """The column of ``shape`` that RecBole would have."""
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

    def to(self, device: Any) -> "Histories | Tensor":
        """Itself on its own device; the cut column on another one."""
        return self if torch.device(device) == self.device else self.cut().to(device)

    def __deepcopy__(self, memo: dict) -> "Histories":
        return self

    def __reduce__(self) -> tuple:
        # a worker sends a batch, which is far smaller than the flat column
        if self.shape.numel() <= self.flat.numel():
            return _itself, (self.cut(),)
        return Histories, (self.flat, self.spans, self.shape_of_row)


class Columns(MutableMapping, dict):
    """Columns by name, which RecBole takes for a dict; a history is cut at the first access, and kept."""

    def __getitem__(self, name: str) -> Tensor:
        value = dict.__getitem__(self, name)
        if isinstance(value, Histories):
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
        """The columns, without cutting histories."""
        return dict(zip(dict.keys(self), dict.values(self)))

    def __reduce__(self) -> tuple:
        return Columns, (self.uncut(),)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return self.__reduce__()


class SequenceInteraction(Interaction):
    """An ``Interaction`` whose histories are cut when they are read, as are those of its parts and copies."""

    def __init__(self, columns: dict[str, Any]):
        self.interaction = Columns(columns)
        self.length = max(((*column.shape, 1)[0] for column in columns.values()), default=-1)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        places = places_of(index)
        return self._by_rows(lambda column: column[places])

    def __str__(self) -> str:
        return Interaction.__str__(SimpleNamespace(length=self.length, interaction=self.interaction.uncut()))

    def to(self, device: Any, selected_field: Any = None) -> "SequenceInteraction":
        chosen = [selected_field] if isinstance(selected_field, str) else selected_field
        chosen = self.columns if chosen is None else set(chosen)
        columns = self.interaction.uncut().items()
        return SequenceInteraction(
            {name: column.to(device) if name in chosen else column for name, column in columns}
        )

    def cpu(self) -> "SequenceInteraction":
        return self.to("cpu")

    def repeat(self, sizes: int) -> "SequenceInteraction":
        return self._by_rows(lambda column: column.repeat([sizes] + [1] * (column.ndim - 1)))

    def repeat_interleave(self, repeats: Any, dim: int = 0) -> Interaction:
        if dim != 0:
            return super().repeat_interleave(repeats, dim)
        return self._by_rows(lambda column: column.repeat_interleave(repeats, dim=0))

    def add_prefix(self, prefix: str) -> None:
        self.interaction = Columns({prefix + name: column for name, column in self.interaction.uncut().items()})

    def first_entries(self, names: Container[str]) -> "SequenceInteraction":
        """The columns of ``names``, of histories the first entry alone."""
        columns = {name: column for name, column in self.interaction.uncut().items() if name in names}
        for name, column in columns.items():
            if isinstance(column, Histories):
                columns[name] = replace(column, shape_of_row=(1, *column.shape_of_row[1:]))
        return SequenceInteraction(columns)

    def _reindex(self, index: Any) -> None:
        self.interaction.update(self[index].interaction.uncut())

    def _by_rows(self, change: Callable[[Tensor], Tensor]) -> "SequenceInteraction":
        """The columns after a ``change`` of the rows, which is applied once to histories with the same spans."""
        spans: dict[int, Spans] = {}

        def changed(column: Tensor | Histories) -> Tensor | Histories:
            if not isinstance(column, Histories):
                return change(column)
            old = column.spans
            if id(old) not in spans:
                spans[id(old)] = Spans(change(old.starts), change(old.lengths))
            return replace(column, spans=spans[id(old)])

        return SequenceInteraction({name: changed(column) for name, column in self.interaction.uncut().items()})


@functools.wraps(SequentialDataset.data_augmentation)
def _data_augmentation(self: SequentialDataset) -> None:
    self.logger.debug("data_augmentation")
    self._aug_presets()
    self._check_field("uid_field", "time_field")
    shapes = {field: _shape_of_row(self, field) for field in self.inter_feat if field != self.uid_field}
    if any(self.inter_feat[field].shape[1:] != shape[1:] for field, shape in shapes.items()):
        # PyTorch broadcasts or refuses these
        _data_augmentation.__wrapped__(self)
        return
    self.sort(by=[self.uid_field, self.time_field], ascending=True)
    users = self.inter_feat[self.uid_field]
    is_first = torch.ones(len(users), dtype=torch.bool)
    torch.ne(users[1:], users[:-1], out=is_first[1:])
    targets = (~is_first).nonzero().flatten()
    firsts = is_first.nonzero().flatten()[is_first.cumsum(0)[targets] - 1]
    starts = torch.maximum(firsts, targets - self.config["MAX_ITEM_LIST_LENGTH"])
    lengths = targets - starts
    columns = {**self.inter_feat[targets].interaction, self.item_list_length_field: lengths}
    spans = Spans(smallest(starts), smallest(lengths))
    for field, shape in shapes.items():
        list_field = getattr(self, f"{field}_list_field")
        columns[list_field] = Histories(self.inter_feat[field], spans, tuple(shape))
    self.inter_feat = SequenceInteraction(columns)


@functools.wraps(SequentialDataset.inter_matrix)
def _inter_matrix(self: SequentialDataset, form: str = "coo", value_field: str | None = None) -> Any:
    if isinstance(self.inter_feat, SequenceInteraction):
        # RecBole's copies all columns, and reads the first entry of each history
        wanted = {self.uid_field, self.iid_field, value_field}
        wanted |= {f"{field}{self.config['LIST_SUFFIX']}" for field in wanted} | {self.item_list_length_field}
        self = self.copy(self.inter_feat.first_entries(wanted))
    return _inter_matrix.__wrapped__(self, form, value_field)


def _shape_of_row(dataset: SequentialDataset, field: str) -> tuple[int, ...]:
    length = dataset.field2seqlen[getattr(dataset, f"{field}_list_field")]
    shape = (length,) if isinstance(length, int) else tuple(length)
    is_float = dataset.field2type[field] in (FeatureType.FLOAT, FeatureType.FLOAT_SEQ)
    return (*shape, 2) if is_float and field in dataset.config["numerical_features"] else shape


def _itself(value: Tensor) -> Tensor:
    return value


@changes(
    "recbole.data.dataset.SequentialDataset.data_augmentation",
    "RecBole writes out every prefix of every history, for every field",
    "the process ends",
)
@changes(
    "recbole.data.dataset.SequentialDataset.inter_matrix",
    "RecBole's reads whole histories for their first entries",
    "the process ends",
)
def _install() -> None:
    SequentialDataset.data_augmentation = _data_augmentation
    SequentialDataset.inter_matrix = _inter_matrix


_install()
