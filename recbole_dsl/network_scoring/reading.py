"""Seeing what a model reads of its data: RecBole's datasets and batches that note it."""

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction


@dataclass
class Read:
    """What has been read of a dataset.

    Attributes:
        attributes: names of the dataset's attributes.
        columns: feature table ("inter_feat", "item_feat", ...) -> names of its columns.
        counted: fields of which it was asked how many tokens they have.
        tokens: fields whose tokens were read, not only counted.
        preloaded: fields whose preloaded weights were read.
    """

    attributes: set[str] = field(default_factory=set)
    columns: dict[str, set[str]] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    preloaded: set[str] = field(default_factory=set)


def noting_dataset(dataset: Dataset) -> tuple[Dataset, Read]:
    """A copy of ``dataset`` with the same content, and what is noted of it while it is read."""
    read = Read()
    kind = type(dataset)
    copied = copy.copy(dataset)
    for name, value in vars(dataset).items():
        if isinstance(value, Interaction):
            vars(copied)[name] = noting_columns(value, read.columns.setdefault(name, set()))
    vars(copied)["field2id_token"] = {
        name: _noting_array(tokens, partial(read.counted.add, name), partial(read.tokens.add, name))
        for name, tokens in dataset.field2id_token.items()
    }
    vars(copied)["field2token_id"] = _NotingDict(dataset.field2token_id, read.tokens)
    vars(copied)["_preloaded_weight"] = _NotingDict(dataset._preloaded_weight, read.preloaded)
    own = frozenset(vars(copied))

    def __getattribute__(self: Dataset, name: str) -> Any:
        if name in own:
            read.attributes.add(name)
        return kind.__getattribute__(self, name)

    copied.__class__ = type(kind.__name__, (kind,), {"__getattribute__": __getattribute__})
    return copied, read


def noting_columns(interaction: Interaction, read: set[str]) -> Interaction:
    """``interaction`` with the same content; names of columns go into ``read`` as they are read."""
    noting = type("Noting", (_NotingColumns,), {"read": read})
    result = Interaction({})
    vars(result).update(vars(interaction))
    result.__class__ = noting
    return result


class _NotingColumns(Interaction):
    """A table that notes the columns that are read of it, by name or all at once, and of its copies and parts."""

    read: set[str]

    def __getattribute__(self, name: str) -> Any:
        if name == "interaction":
            # the table's own methods go through all columns, whatever they are called for
            if sys._getframe(1).f_globals.get("__name__") not in (Interaction.__module__, __name__, copy.__name__):
                self.read.update(vars(self)["interaction"])
        elif name == "numpy":
            self.read.update(vars(self)["interaction"])
        value = Interaction.__getattribute__(self, name)
        return self._noted(value) if name in _MAKE_TABLES else value

    def __getattr__(self, name: str) -> Any:
        value = Interaction.__getattr__(self, name)
        self.read.add(name)
        return value

    def __getitem__(self, index: Any) -> Any:
        value = Interaction.__getitem__(self, index)
        if isinstance(index, str):
            self.read.add(index)
            return value
        return self._as_noting(value)

    def sort(self, by: Any, ascending: Any = True) -> None:
        self.read.update([by] if isinstance(by, str) else by)
        Interaction.sort(self, by, ascending)

    def _noted(self, method: Callable[..., Interaction]) -> Callable[..., Interaction]:
        return lambda *args, **kwargs: self._as_noting(method(*args, **kwargs))

    def _as_noting(self, table: Interaction) -> Interaction:
        table.__class__ = type(self)
        return table


_MAKE_TABLES = frozenset({"cpu", "repeat", "repeat_interleave", "to"})


class _NotingDict(dict):
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


def _noting_array(array: Any, count: Callable[[], None], note: Callable[[], None]) -> np.ndarray:
    noting = np.asarray(array).view(_NotingArray)
    noting.count, noting.note = count, note
    return noting


class _NotingArray(np.ndarray):
    """An array that says when its length is asked for, and when its content is read."""

    count: Callable[[], None] | None = None
    note: Callable[[], None] | None = None

    def __len__(self) -> int:
        if self.count is not None:
            self.count()
        return super().__len__()

    def _noted(self) -> np.ndarray:
        if self.note is not None:
            self.note()
        return self.view(np.ndarray)

    def __getitem__(self, index: Any) -> Any:
        return self._noted()[index]

    def __iter__(self) -> Iterator:
        return iter(self._noted())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [one._noted() if isinstance(one, _NotingArray) else one for one in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        self._noted()
        return super().__array_function__(func, types, args, kwargs)

    def tolist(self) -> list:
        return self._noted().tolist()
