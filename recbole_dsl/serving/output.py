"""Recommendations as csv, jsonl or parquet, in a file that is whole or not there."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.files import output_file, whole_file
from recbole_dsl.serving.csr import Floats

FORMATS = ("csv", "jsonl", "parquet")
# what the first column may be: whom the items are for, or which item they are like
SUBJECTS = ("user", "similar_to")
_COLUMNS = ("rank", "item", "score")

# users or items (n,), items (n, k) with None for nothing, scores (n, k)
Batch = tuple[NDArray[np.object_], NDArray[np.object_], Floats]
# how long the first line may be
_LINE = 2**24
Write = Callable[[Batch], None]


def format_of(path: str | None, given: str | None) -> str:
    """The format that is ``given``, or else that of the ending of ``path``, or else csv.

    Raises:
        DSLError: if there is no such format, or its packages are missing.
    """
    ending = os.path.splitext(path or "")[1][1:].lower()
    if given is not None and given not in FORMATS:
        raise refusal("format", given, f"one of {', '.join(FORMATS)}")
    if given is None and ending and ending not in FORMATS:
        raise DSLError(f"output={shown(path)}: must end in {', '.join(FORMATS)}, or say --format=")
    chosen = given or ending or "csv"
    if chosen == "parquet":
        if path is None:
            raise DSLError("format=parquet: must have an --output file")
        _parquet()
    return chosen


def write_recommendations(
    batches: Iterable[Batch], path: str, format: str, inputs: Iterable[str | None] = (), of: str = "user"
) -> int:
    """Write ``batches`` to a file that appears at ``path`` when it is complete.

    csv and parquet have a row for each item: ``of``, rank, item, score. jsonl has a line for each user.

    Args:
        inputs: the files that are read for ``batches``.
        of: one of `SUBJECTS`.

    Returns:
        How many items were recommended, to all of them.

    Raises:
        DSLError: if it cannot be written, or is one of ``inputs`` or a file of another kind.
    """
    place = output_file(path, "output", f"recommendations in {format}", _ARE_OURS[format], inputs)
    n = 0
    try:
        with whole_file(place) as file, _WRITERS[format](file, of) as write:
            for batch in batches:
                write(batch)
                n += int(np.not_equal(batch[1], None).sum())
    except OSError as error:
        raise DSLError(f"output={shown(path)}: must be a place that can be written: {error.strerror}") from error
    return n


def print_recommendations(batches: Iterable[Batch], file: BinaryIO, format: str, of: str = "user") -> None:
    """Write ``batches`` to ``file`` as csv or jsonl."""
    remaining = iter(batches)
    # raises before anything is written
    first = next(remaining, None)
    with _WRITERS[format](file, of) as write:
        for batch in chain([] if first is None else [first], remaining):
            write(batch)


@contextmanager
def _csv(file: BinaryIO, of: str) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((of, *_COLUMNS))
    try:
        yield lambda batch: writer.writerows(zip(*_columns(batch)))
    finally:
        text.flush()
        text.detach()


@contextmanager
def _jsonl(file: BinaryIO, of: str) -> Iterator[Write]:
    def write(batch: Batch) -> None:
        for subject, items, scores in zip(*batch):
            n = sum(item is not None for item in items)
            line = {of: subject, "items": items[:n].tolist(), "scores": _rounded(scores[:n])}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    yield write


@contextmanager
def _parquet_file(file: BinaryIO, of: str) -> Iterator[Write]:
    pyarrow, parquet = _parquet()
    types = (pyarrow.string(), pyarrow.int32(), pyarrow.string(), pyarrow.float32())
    schema = pyarrow.schema(list(zip((of, *_COLUMNS), types)))
    with parquet.ParquetWriter(file, schema) as writer:
        yield lambda batch: writer.write_table(
            pyarrow.table([pyarrow.array(c, t) for c, t in zip(_columns(batch), types)], schema)
        )


def _columns(batch: Batch) -> tuple[list[str], list[int], list[str], list[float]]:
    """The columns of a batch, without items that are missing."""
    users, items, scores = batch
    there = np.not_equal(items, None)
    ranks = np.broadcast_to(np.arange(1, items.shape[1] + 1), items.shape)
    names = np.broadcast_to(users[:, None], items.shape)
    return names[there].tolist(), ranks[there].tolist(), items[there].tolist(), _rounded(scores[there])


def _rounded(scores: Floats) -> list[float]:
    """``scores`` with the fewest digits that tell a float32 from its neighbours."""
    return [float(str(score)) for score in scores]


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DSLError("format=parquet: must have the package pyarrow: pip install pyarrow") from error
    return pyarrow, pyarrow.parquet


def _is_csv(path: str) -> bool:
    with open(path, "rb") as file:
        first = file.readline(_LINE).strip().decode(errors="replace")
    return first in {",".join((of, *_COLUMNS)) for of in SUBJECTS}


def _is_jsonl(path: str) -> bool:
    with open(path, "rb") as file:
        try:
            line = json.loads(file.readline(_LINE))
        except (ValueError, RecursionError):
            return False
    return isinstance(line, dict) and any(line.keys() == {of, "items", "scores"} for of in SUBJECTS)


def _is_parquet(path: str) -> bool:
    pyarrow, parquet = _parquet()
    try:
        return tuple(parquet.read_schema(path).names) in {(of, *_COLUMNS) for of in SUBJECTS}
    except pyarrow.ArrowException:
        return False


_ARE_OURS = {"csv": _is_csv, "jsonl": _is_jsonl, "parquet": _is_parquet}
_WRITERS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet_file}
