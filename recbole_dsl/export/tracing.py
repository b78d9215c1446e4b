"""Tracing what a model reads of its data: datasets and batches that record it."""

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction

from recbole_dsl.network_scoring.stored_dataset import Read


def traced_dataset(dataset: Dataset) -> tuple[Dataset, Read]:
    """A copy of ``dataset`` with the same content, and a record of what is read of it from now on."""
    read = Read()
    kind = type(dataset)
    copied = copy.copy(dataset)
    for name, value in vars(dataset).items():
        if isinstance(value, Interaction):
            vars(copied)[name] = traced_table(value, read.columns.setdefault(name, set()))
    vars(copied)["field2id_token"] = {
        name: _traced_array(tokens, partial(read.counted.add, name), partial(read.tokens.add, name))
        for name, tokens in dataset.field2id_token.items()
    }
    vars(copied)["field2token_id"] = _TracedDict(dataset.field2token_id, read.tokens)
    vars(copied)["_preloaded_weight"] = _TracedDict(dataset._preloaded_weight, read.preloaded)
    own = frozenset(vars(copied))

    def __getattribute__(self: Dataset, name: str) -> Any:
        if name in own:
            read.attributes.add(name)
        return kind.__getattribute__(self, name)

    copied.__class__ = type(kind.__name__, (kind,), {"__getattribute__": __getattribute__})
    return copied, read


def traced_table(interaction: Interaction, read: set[str]) -> Interaction:
    """``interaction`` with the same content, which adds the name of each column that is read to ``read``."""
    traced = type("Traced", (_TracedTable,), {"read": read})
    result = Interaction({})
    vars(result).update(vars(interaction))
    result.__class__ = traced
    return result


class _TracedTable(Interaction):
    """A table that records the columns that are read, by name or all at once, of it, its copies and its parts."""

    read: set[str]

    def __getattribute__(self, name: str) -> Any:
        if name == "interaction":
            # the table's own methods go through all columns, whatever they do
            if sys._getframe(1).f_globals.get("__name__") not in (Interaction.__module__, __name__, copy.__name__):
                self.read.update(vars(self)["interaction"])
        elif name == "numpy":
            self.read.update(vars(self)["interaction"])
        value = Interaction.__getattribute__(self, name)
        if name in _MAKE_TABLES:
            return lambda *args, **kwargs: self._as_traced(value(*args, **kwargs))
        return value

    def __getattr__(self, name: str) -> Any:
        value = Interaction.__getattr__(self, name)
        self.read.add(name)
        return value

    def __getitem__(self, index: Any) -> Any:
        value = Interaction.__getitem__(self, index)
        if isinstance(index, str):
            self.read.add(index)
            return value
        return self._as_traced(value)

    def sort(self, by: Any, ascending: Any = True) -> None:
        self.read.update([by] if isinstance(by, str) else by)
        Interaction.sort(self, by, ascending)

    def _as_traced(self, table: Interaction) -> Interaction:
        table.__class__ = type(self)
        return table


_MAKE_TABLES = frozenset({"cpu", "repeat", "repeat_interleave", "to"})


class _TracedDict(dict):
    def __init__(self, values: dict, read: set[str]):
        super().__init__(values)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.update({name} & self.keys())
        return super().get(name, default)

    def items(self) -> Any:
        self._read.update(self)
        return super().items()

    def values(self) -> Any:
        self._read.update(self)
        return super().values()


def _traced_array(array: Any, count: Callable[[], None], record: Callable[[], None]) -> np.ndarray:
    traced = np.asarray(array).view(_TracedArray)
    traced.count, traced.record = count, record
    return traced


class _TracedArray(np.ndarray):
    """An array that calls ``count`` when its length is asked for, and ``record`` when its content is read."""

    count: Callable[[], None] | None = None
    record: Callable[[], None] | None = None

    def __len__(self) -> int:
        if self.count is not None:
            self.count()
        return super().__len__()

    def _recorded(self) -> np.ndarray:
        if self.record is not None:
            self.record()
        return self.view(np.ndarray)

    def __getitem__(self, index: Any) -> Any:
        return self._recorded()[index]

    def __iter__(self) -> Iterator:
        return iter(self._recorded())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [one._recorded() if isinstance(one, _TracedArray) else one for one in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        self._recorded()
        return super().__array_function__(func, types, args, kwargs)

    def tolist(self) -> list:
        return self._recorded().tolist()
