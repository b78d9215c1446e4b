"""Reads atomic files by column, with tokens as codes, and assigns ids to tokens."""

import os
from collections.abc import Iterable, Mapping, MutableMapping
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from recbole.config import Config
from tqdm.utils import CallbackIOWrapper

from recbole_dsl.compat.packages import has_marks
from recbole_dsl.data.progress import progress

_BLOCK = 1 << 24


def read_columns(path: str, types: Mapping[str, bool], config: Config) -> pd.DataFrame | None:
    """The columns of an atomic file as RecBole reads them, except that tokens are categorical.

    Categories are in the order of first appearance. None if the file is not plain UTF-8 text without quotes, or if
    pyarrow is not installed or would read it differently.

    Args:
        types: a column as the header has it -> whether it is a number; in the order of the file.
        config: has the separator, the encoding, and whether to show progress.
    """
    separator, encoding = config["field_separator"], config["encoding"]
    missing = _missing_values()
    is_text = (encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8", "ascii")
    is_known = missing and is_text and len(separator) == 1 and find_spec("pyarrow")
    # pandas and pyarrow split lines with such characters differently
    if not is_known or has_marks(path):
        return None
    import pyarrow as pa
    from pyarrow import csv

    kinds = {
        name: pa.float64() if is_number else pa.dictionary(pa.int32(), pa.string())
        for name, is_number in types.items()
    }
    size = os.path.getsize(path)
    with open(path, "rb") as file, progress(f"Read {os.path.basename(path)}", size, config, "B") as done:
        try:
            table = csv.read_csv(
                pa.PythonFile(CallbackIOWrapper(done.update, file), "r"),
                csv.ReadOptions(use_threads=torch.get_num_threads() > 1, block_size=_BLOCK),
                csv.ParseOptions(delimiter=separator, quote_char=False),
                csv.ConvertOptions(
                    column_types=kinds,
                    include_columns=list(types),
                    null_values=missing,
                    strings_can_be_null=True,
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            return None
    found = {}
    column = coded = None
    for name, is_number in types.items():
        column = table.column(name)
        # its chunks are freed once they are joined
        table = table.drop_columns([name])
        if is_number:
            found[name] = np.array(column)
            continue
        coded = column.unify_dictionaries().combine_chunks()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.chunk(0) if coded.num_chunks else pa.array([], kinds[name])
        codes = np.array(coded.indices.fill_null(-1))
        found[name] = pd.Categorical.from_codes(codes, pd.Index(coded.dictionary.to_pandas(), dtype=str))
    del column, coded
    # pyarrow would keep three times what was read
    pa.default_memory_pool().release_unused()
    return pd.DataFrame(found, copy=False)


def joint_codes(columns: Iterable[Any]) -> tuple[list[NDArray[np.integer]], NDArray]:
    """Codes of the values of several columns, the same for equal values, and the value of each code.

    Args:
        columns: arrays of values, or pandas' columns, categorical or not.

    Returns:
        The codes of each column, -1 for missing values; and the values, (codes,).
    """
    parts = []
    for column in columns:
        if isinstance(getattr(column, "dtype", None), pd.CategoricalDtype):
            values = pd.Categorical(column)
            parts.append((values.codes, values.categories.to_numpy()))
        else:
            codes, values = pd.factorize(np.asarray(column))
            parts.append((codes, values))
    if len(parts) == 1:
        return [parts[0][0]], parts[0][1]
    places, values = pd.factorize(np.concatenate([np.asarray(values, object) for _, values in parts]))
    ends = np.cumsum([len(values) for _, values in parts])
    maps = (np.append(part, -1) for part in np.split(places, ends[:-1]))
    return [to[codes] for (codes, _), to in zip(parts, maps)], values


def ids_by_appearance(codes: NDArray[np.integer], tokens: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Ids from 1 in order of first appearance of the codes, 0 for the code -1; and the token of each id from 0."""
    is_there = codes >= 0
    ids, seen = pd.factorize(codes if is_there.all() else codes[is_there])
    ids += 1
    if len(ids) < len(codes):
        present, ids = ids, np.zeros(len(codes), np.int64)
        ids[is_there] = present
    return ids, np.array(["[PAD]", *tokens[seen]])


class TokenIds(MutableMapping):
    """Token -> id, as RecBole's dict, which is created at the first access."""

    def __init__(self, tokens: NDArray[np.str_]):
        self.tokens, self.is_changed = tokens, False

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def __getitem__(self, token: str) -> int:
        return self._ids[token]

    def __setitem__(self, token: str, number: int) -> None:
        self._ids[token], self.is_changed = number, True

    def __delitem__(self, token: str) -> None:
        del self._ids[token]
        self.is_changed = True

    def __iter__(self):
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return repr(self._ids)

    def __reduce__(self) -> tuple:
        # this package may be missing where the pickle is read
        return dict, (self._ids,)


def _missing_values() -> list[str] | None:
    """The words that pandas reads as a missing value; None if this release does not tell them."""
    try:
        from pandas._libs.parsers import STR_NA_VALUES
    except ImportError:
        return None
    return sorted(STR_NA_VALUES)
