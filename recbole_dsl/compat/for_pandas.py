"""What RecBole needs from pandas 3, and from 2.2, which warns of it."""

import builtins
import contextlib
import functools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from recbole_dsl.compat.on_import import after_import, replaced
from recbole_dsl.compat.releases import release

_CHUNK = 2**24


@after_import("recbole.data.dataset.dataset")
def parser_in_c(module: ModuleType) -> None:
    """RecBole reads its files by pandas' parser in Python, which takes about eight times as long as the one in C.

    They give the same frames where the separator is one character and there are no quotation marks, null bytes and
    lone carriage returns. Files with any of these, and what the parser in C refuses, such as a line with a column
    too many, are left to the other.
    """
    pd = module.pd

    def read_csv(path: str, **options: Any) -> Any:
        is_plain = len(options.get("delimiter") or "") == 1 and not _has(path, b'"', b"\0", b"\r")
        if options.get("engine") == "python" and is_plain:
            with contextlib.suppress(pd.errors.ParserError, ValueError):
                # numbers are read to the last bit, as by the other
                return pd.read_csv(path, **{**options, "engine": "c", "float_precision": "round_trip"})
        return pd.read_csv(path, **options)

    module.pd = replaced(pd, read_csv=read_csv)


@after_import("recbole.data.dataset.dataset")
def chained_fill(module: ModuleType) -> None:
    """From pandas 3.0 on, ``frame[column].fillna(..., inplace=True)`` fills a copy; 2.2 and later warn of it.

    The frames are filled before RecBole does.
    """
    from recbole.utils import FeatureType

    def read_csv(*args: Any, **options: Any) -> Any:
        frame = pd.read_csv(*args, **options)
        for column in frame:
            if str(column).endswith("_seq"):
                frame[column] = frame[column].fillna("")
        return frame

    fill_nan = module.Dataset._fill_nan

    @functools.wraps(fill_nan)
    def filled(self: Any) -> None:
        for name in self.feat_name_list:
            frame = getattr(self, name)
            for field in frame:
                if self.field2type[field] == FeatureType.TOKEN:
                    frame[field] = frame[field].fillna(0)
                elif self.field2type[field] == FeatureType.FLOAT:
                    frame[field] = frame[field].fillna(frame[field].mean())
        fill_nan(self)

    pd = module.pd
    if release("pandas") >= (3, 0):
        module.pd = replaced(pd, read_csv=read_csv)
        module.Dataset._fill_nan = filled
    if release("pandas") >= (2, 2):
        for method in ("_fill_nan", "_load_feat"):
            setattr(module.Dataset, method, _without_warnings(getattr(module.Dataset, method)))


@after_import(
    "recbole.data.dataset.dataset", "recbole.data.dataset.kg_dataset", "recbole.data.dataset.sequential_dataset"
)
def length_of_each_value(module: ModuleType) -> None:
    """From pandas 3.0 on, ``series.agg(len)`` is the length of the series, not those of its values.

    These modules of RecBole take the ``len`` of no series themselves.
    """
    import pandas as pd

    def lengths(values: Any) -> Any:
        return values.map(builtins.len) if isinstance(values, pd.Series) else builtins.len(values)

    if release("pandas") >= (3, 0):
        module.len = lengths


@after_import("recbole.data.dataset.dataset", "recbole.data.interaction")
def read_only_values(module: ModuleType) -> None:
    """From pandas 3.0 on, ``values`` of a column are read-only, which PyTorch warns of where it shares memory."""
    import numpy as np

    def of_writable(make: Callable) -> Callable:
        def made(data: Any, *args: Any, **options: Any) -> Any:
            if isinstance(data, np.ndarray) and not data.flags.writeable:
                data = data.copy()
            return make(data, *args, **options)

        return made

    if release("pandas") >= (3, 0):
        torch = module.torch
        makers = {name: of_writable(getattr(torch, name)) for name in ("as_tensor", "FloatTensor", "LongTensor")}
        module.torch = replaced(torch, **makers)


def _has(path: str, *marks: bytes) -> bool:
    """Whether any of ``marks``, a byte each, is in the file; the ends of lines on Windows do not count."""
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            if any(mark in chunk and mark in chunk.replace(b"\r\n", b"\n") for mark in marks):
                return True
    return False


def _without_warnings(method: Callable) -> Callable:
    """``method`` without pandas' warnings of chained assignments."""
    import pandas as pd

    kinds = [FutureWarning]
    if hasattr(pd.errors, "ChainedAssignmentError"):
        kinds.append(pd.errors.ChainedAssignmentError)

    @functools.wraps(method)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            for kind in kinds:
                warnings.filterwarnings("ignore", "(?s).*chained assignment", kind)
            return method(*args, **kwargs)

    return quiet
