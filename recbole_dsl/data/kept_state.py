"""The state of a dataset as plain data and arrays, which the cache can hold, and back."""

from collections import defaultdict
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_dsl.data.cache import NotKept
from recbole_dsl.data.columns import TokenIds
from recbole_dsl.data.lazy_columns import Histories, LazyColumn, Lengths, Spans, Targets
from recbole_dsl.data.sequences import SequenceInteraction

_LAZY = {kind.__name__: kind for kind in (Lengths, Targets, Histories)}
_ENUMS = {kind.__name__: kind for kind in (FeatureType, FeatureSource)}


def kept(value: Any) -> Any:
    """``value`` of a dataset's state for the cache: what is neither plain data nor an array is a marked tuple."""
    if isinstance(value, (FeatureType, FeatureSource)):
        return "enum", type(value).__name__, value.name
    if isinstance(value, TokenIds):
        return dict(value) if value.is_changed else ("ids", value.tokens)
    if isinstance(value, pd.DataFrame):
        index = None if value.index.equals(pd.RangeIndex(len(value))) else value.index.to_numpy()
        return "frame", index, {name: _kept_column(value[name]) for name in value}
    if type(value) is Interaction:
        return "interaction", {name: column.numpy() for name, column in value.interaction.items()}
    if type(value) is SequenceInteraction:
        return ("histories", *_kept_histories(value))
    if isinstance(value, defaultdict):
        if value.default_factory is not int:
            raise NotKept("a defaultdict")
        return "counts", dict(value)
    if isinstance(value, dict):
        return {key: kept(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return ("tuple", *map(kept, value))
    return [kept(one) for one in value] if isinstance(value, list) else value


def restored(value: Any) -> Any:
    """What `kept` was given."""
    if isinstance(value, dict):
        return {key: restored(one) for key, one in value.items()}
    if isinstance(value, list):
        return [restored(one) for one in value]
    if not isinstance(value, tuple):
        return value
    kind, *rest = value
    if kind == "enum":
        return _ENUMS[rest[0]][rest[1]]
    if kind == "ids":
        return TokenIds(rest[0])
    if kind == "counts":
        return defaultdict(int, rest[0])
    if kind == "interaction":
        return Interaction({name: torch.from_numpy(column) for name, column in rest[0].items()})
    if kind == "histories":
        return _restored_histories(*rest)
    if kind == "frame":
        index, columns = rest
        columns = {name: _restored_column(column) for name, column in columns.items()}
        return pd.DataFrame(columns, index=index, copy=False)
    return tuple(map(restored, rest))


def _kept_column(column: pd.Series) -> Any:
    values = column.to_numpy()
    if values.dtype != object:
        return values
    kinds = {(type(value), getattr(value, "dtype", None), np.ndim(value)) for value in values}
    if len(kinds) == 1:
        ((kind, dtype, dimensions),) = kinds
        if kind is np.ndarray and dimensions == 1 and dtype.kind in "if":
            lengths = np.array([len(value) for value in values])
            return "sequences", np.concatenate(values), lengths
        if kind is list and len({len(value) for value in values}) == 1:
            return "lists", np.array(values.tolist())
    raise NotKept(f"the column {column.name}")


def _restored_column(column: Any) -> Any:
    if not isinstance(column, tuple):
        return column
    kind, values, *lengths = column
    parts = values.tolist() if kind == "lists" else np.split(values, np.cumsum(lengths[0])[:-1])
    # pandas would take rows of equal length for a table
    found = np.empty(len(parts), object)
    found[:] = parts
    return found


def _kept_histories(value: SequenceInteraction) -> tuple[list, dict]:
    """The spans of ``value``, each once, and its columns: a kind, spans by their number, and what else it has."""
    spans: dict[int, int] = {}
    arrays, columns = [], {}
    for name, column in value.interaction.uncut().items():
        if not isinstance(column, LazyColumn):
            columns[name] = column.numpy()
            continue
        if id(column.spans) not in spans:
            spans[id(column.spans)] = len(arrays)
            arrays.append([column.spans.starts.numpy(), column.spans.lengths.numpy()])
        more = [getattr(column, field.name) for field in fields(column) if field.name != "spans"]
        more = [one.numpy() if isinstance(one, torch.Tensor) else one for one in more]
        columns[name] = [type(column).__name__, spans[id(column.spans)], *more]
    return arrays, columns


def _restored_histories(arrays: list, columns: dict) -> SequenceInteraction:
    spans = [Spans(*map(torch.from_numpy, pair)) for pair in arrays]
    found = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray):
            found[name] = torch.from_numpy(column)
            continue
        kind, number, *more = column
        more = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in more]
        found[name] = _LAZY[kind](spans[number], *more)
    return SequenceInteraction(found)
