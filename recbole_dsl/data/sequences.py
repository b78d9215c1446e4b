"""Histories of sequential models, cut from one flat column when they are read.

Importing this changes RecBole's ``SequentialDataset``, which writes out every prefix of every history otherwise.
"""

import functools
from collections.abc import Callable, Container
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureType
from torch import Tensor

from recbole_dsl.checkpoint.tokens import smallest
from recbole_dsl.data.batches import row_taker
from recbole_dsl.data.lazy_columns import Columns, Histories, LazyColumn, Lengths, Spans, Targets, column_of
from recbole_dsl.data.sorting import order_by
from recbole_dsl.patching import changes


class SequenceInteraction(Interaction):
    """An ``Interaction`` whose lazy columns are cut when they are read, as are those of its parts and copies."""

    def __init__(self, columns: dict[str, Any]):
        self.interaction = Columns(columns)
        self.length = max(((*column.shape, 1)[0] for column in columns.values()), default=-1)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.interaction[index]
        return self._by_rows(row_taker(index))

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

    def uncut_column(self, name: str) -> Tensor | LazyColumn:
        """The column ``name``, without cutting it."""
        return self.interaction.uncut()[name]

    def first_entries(self, names: Container[str]) -> "SequenceInteraction":
        """The columns of ``names``, of histories the first entry alone."""
        columns = {name: column for name, column in self.interaction.uncut().items() if name in names}
        for name, column in columns.items():
            if isinstance(column, Histories):
                columns[name] = replace(column, shape_of_row=(1, *column.shape_of_row[1:]))
        return SequenceInteraction(columns)

    def sort(self, by: Any, ascending: Any = True) -> None:
        # for what RecBole says of its arguments
        Interaction({name: torch.empty(0) for name in self}).sort(by, ascending)
        names = [by] if isinstance(by, str) else by
        directions = [ascending] * len(names) if isinstance(ascending, bool) else ascending
        directions = directions * len(names) if len(directions) == 1 else directions
        # a column that is cut for this is not kept
        columns = [column_of(self, name) for name in names]
        order = order_by([column if column.ndim == 1 else column[..., 0] for column in columns], directions)
        if order is not None:
            self._reindex(order)

    def _reindex(self, index: Any) -> None:
        self.interaction.update(self[index].interaction.uncut())

    def _by_rows(self, change: Callable[[Tensor], Tensor]) -> "SequenceInteraction":
        """The columns after a ``change`` of the rows, which is applied once to lazy ones with the same spans."""
        spans: dict[int, Spans] = {}

        def changed(column: Tensor | LazyColumn) -> Tensor | LazyColumn:
            if not isinstance(column, LazyColumn):
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
    # RecBole's is several times as slow
    self.inter_feat = SequenceInteraction(self.inter_feat.interaction)
    self.sort(by=[self.uid_field, self.time_field], ascending=True)
    users = self.inter_feat[self.uid_field]
    is_first = torch.ones(len(users), dtype=torch.bool)
    torch.ne(users[1:], users[:-1], out=is_first[1:])
    targets = (~is_first).nonzero().flatten()
    firsts = is_first.nonzero().flatten()[is_first.cumsum(0)[targets] - 1]
    starts = torch.maximum(firsts, targets - self.config["MAX_ITEM_LIST_LENGTH"])
    lengths = targets - starts
    spans = Spans(smallest(starts), smallest(lengths))
    del firsts, starts, lengths, targets
    columns = {field: Targets(spans, self.inter_feat[field]) for field in self.inter_feat}
    columns[self.item_list_length_field] = Lengths(spans)
    for field, shape in shapes.items():
        list_field = getattr(self, f"{field}_list_field")
        columns[list_field] = Histories(spans, self.inter_feat[field], tuple(shape))
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
