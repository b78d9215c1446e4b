"""A table of vectors as an artifact holds it: few bits a value, and the smallest index for its density."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.entries import Entries, column_type
from recbole_dsl.serving.lists import offsets_of
from recbole_dsl.serving.packing import bits_for, pack, packed_bytes, unpack
from recbole_dsl.serving.quantising import LARGEST_VALUE, quantise

VALUES = ("fp32", "fp16", "int8", "int4")
# which entries there are: every one; a bit for each; or how many a row has, and their columns
INDICES = ("full", "bitmap", "columns")
MOST_COLUMNS = 2**16
_BLOCK = 2**22


@dataclass(frozen=True)
class Table:
    """A matrix (n_rows, n_columns) of which few entries may be there, in the bits that a file has.

    Attributes:
        values: one of `VALUES`: how its entries are written. int8 has a scale a column, int4 a scale a row.
        index: one of `INDICES`.
        parts: the arrays, by name: ``codes``, and as values and index ask for it ``scales``, ``counts``,
            ``columns``, ``bitmap``.
    """

    n_rows: int
    n_columns: int
    values: str
    index: str
    parts: dict[str, NDArray]

    @classmethod
    def of(cls, entries: Entries, n_columns: int, values: str) -> "Table":
        """Write ``entries`` in few bits.

        Raises:
            DSLError: if ``values`` is none of `VALUES`, or too small for the entries.
        """
        if values not in VALUES:
            raise refusal("values", values, f"one of {', '.join(VALUES)}")
        if n_columns > MOST_COLUMNS:
            raise DSLError(f"a table of {n_columns} columns: must have at most {MOST_COLUMNS}")
        counts = np.diff(entries.offsets)
        index, parts = _smallest_index(counts, entries.columns, n_columns)
        parts.update(quantise(entries, n_columns, values))
        return cls(len(counts), n_columns, values, index, parts)

    @classmethod
    def read(cls, artifact: Artifact, prefix: str, n_rows: int, description: Any) -> "Table":
        """The table whose arrays' names begin with ``prefix``.

        Args:
            description: what `describe` gave.

        Raises:
            DSLError: if these are no table of so many rows.
        """
        if not isinstance(description, dict):
            artifact.refuse(f"{prefix} must be described in the header")
        n_columns, values, index = (description.get(name) for name in ("n_columns", "values", "index"))
        if type(n_columns) is not int or not 1 <= n_columns <= MOST_COLUMNS:
            artifact.refuse(f"{prefix} must have from 1 to {MOST_COLUMNS} columns")
        if values not in VALUES or index not in INDICES:
            artifact.refuse(
                f"{prefix} must have values of {', '.join(VALUES)} and an index of {', '.join(INDICES)}"
            )
        parts = _read_index(artifact, prefix, n_rows, n_columns, index)
        table = cls(n_rows, n_columns, values, index, parts)
        parts.update(_read_values(artifact, prefix, table.nnz, n_rows, n_columns, values))
        if index == "columns" and not table._ascends():
            artifact.refuse(f"{prefix}.columns must be within 0..{n_columns - 1} and ascend within each row")
        return table

    def describe(self) -> dict[str, Any]:
        """What the header says of it, as JSON."""
        return {"n_columns": self.n_columns, "values": self.values, "index": self.index}

    def arrays(self, prefix: str) -> dict[str, NDArray]:
        """What `read` reads."""
        return {f"{prefix}.{name}": array for name, array in self.parts.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(array.nbytes for array in self.parts.values())

    @property
    def nnz(self) -> int:
        """How many entries there are."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(n_rows + 1,): where the entries of each row begin, and where the last end."""
        if self.index == "full":
            return np.arange(self.n_rows + 1) * self.n_columns
        if self.index == "bitmap":
            return offsets_of(_bit_counts(self.parts["bitmap"]).sum(1, dtype=np.int64))
        return offsets_of(self.parts["counts"])

    def rows(self, start: int, stop: int) -> Entries:
        """The rows from ``start`` to ``stop``, decoded."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        offsets = self.offsets[start : stop + 1] - first
        columns = self._columns(start, stop, first, last)
        codes = self.parts["codes"]
        if self.values in ("fp32", "fp16"):
            decoded = codes[first:last].astype(np.float32)
        elif self.values == "int8":
            decoded = codes[first:last] * self.parts["scales"][columns]
        else:
            scales = self.parts["scales"][start:stop].astype(np.float32) * self.parts["unit"][0]
            signed = unpack(codes, 4, first, last).astype(np.int8) - np.int8(8)
            decoded = signed * np.repeat(scales, np.diff(offsets))
        return Entries(decoded, columns, offsets)

    def all_rows(self) -> Entries:
        """Every row, decoded a block at a time, so that little else is there meanwhile."""
        values, columns = np.empty(self.nnz, np.float32), np.empty(self.nnz, column_type(self.n_columns))
        for start, stop in self.blocks():
            here, block = slice(self.offsets[start], self.offsets[stop]), self.rows(start, stop)
            values[here], columns[here] = block.values, block.columns
        return Entries(values, columns, self.offsets)

    def blocks(self, cells: int = _BLOCK) -> Iterator[tuple[int, int]]:
        """First row and end row of blocks that are small when they are dense: of about so many ``cells``."""
        height = max(1, cells // self.n_columns)
        for start in range(0, self.n_rows, height):
            yield start, min(start + height, self.n_rows)

    def dense_rows(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, n_columns): the rows ``ids`` (n,); few of them take little time, however many rows there are."""
        out = np.zeros((len(ids), self.n_columns), np.float32)
        if 8 * len(ids) < self.n_rows:
            # rows that follow each other are decoded together
            ends = [*(np.flatnonzero(np.diff(ids) != 1) + 1).tolist(), len(ids)]
            for first, last in zip([0, *ends], ends):
                if first < last:
                    out[first:last] = self.rows(ids[first], ids[last - 1] + 1).dense(self.n_columns)
            return out
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        for start, stop in self.blocks():
            first, last = np.searchsorted(ascending, (start, stop))
            if first < last:
                block = self.rows(start, stop).dense(self.n_columns)
                out[order[first:last]] = block[ascending[first:last] - start]
        return out

    def _columns(self, start: int, stop: int, first: int, last: int) -> NDArray[np.unsignedinteger]:
        if self.index == "columns":
            return unpack(self.parts["columns"], bits_for(self.n_columns), first, last)
        dtype = column_type(self.n_columns)
        if self.index == "full":
            return np.tile(np.arange(self.n_columns, dtype=dtype), stop - start)
        bits = np.unpackbits(self.parts["bitmap"][start:stop], axis=1, count=self.n_columns, bitorder="little")
        return np.nonzero(bits)[1].astype(dtype)

    def _ascends(self) -> bool:
        for start, stop in self.blocks():
            first, last = int(self.offsets[start]), int(self.offsets[stop])
            columns = self._columns(start, stop, first, last).astype(np.int32)
            if len(columns) and columns.max() >= self.n_columns:
                return False
            rises = columns[1:] > columns[:-1]
            begins = self.offsets[start + 1 : stop] - first - 1
            # a row may be empty at the start, at the end or between two others
            rises[begins[(begins >= 0) & (begins < len(rises))]] = True
            if not rises.all():
                return False
        return True


def _smallest_index(
    counts: NDArray[np.int64], columns: NDArray[np.unsignedinteger], n_columns: int
) -> tuple[str, dict[str, NDArray]]:
    n_rows, nnz = len(counts), len(columns)
    if nnz == n_rows * n_columns:
        return "full", {}
    count_type = np.uint8 if n_columns < 2**8 else np.uint32
    by_columns = packed_bytes(nnz, bits_for(n_columns)) + n_rows * count_type().itemsize
    if n_rows * packed_bytes(n_columns, 1) < by_columns:
        bits = np.zeros((n_rows, n_columns), bool)
        bits[np.repeat(np.arange(n_rows), counts), columns] = True
        return "bitmap", {"bitmap": np.packbits(bits, axis=1, bitorder="little")}
    return "columns", {"counts": counts.astype(count_type), "columns": pack(columns, bits_for(n_columns))}


def _read_index(artifact: Artifact, prefix: str, n_rows: int, n_columns: int, index: str) -> dict[str, NDArray]:
    if index == "full":
        return {}
    if index == "bitmap":
        bitmap = artifact.array(f"{prefix}.bitmap", "u1", (n_rows, packed_bytes(n_columns, 1)))
        if n_columns % 8 and (bitmap[:, -1] >> (n_columns % 8)).any():
            artifact.refuse(f"{prefix}.bitmap must have no bits beyond column {n_columns - 1}")
        return {"bitmap": bitmap}
    counts = artifact.array(f"{prefix}.counts", "u1" if n_columns < 2**8 else "u4", (n_rows,))
    if counts.max() > n_columns:
        artifact.refuse(f"{prefix}.counts must be at most {n_columns}")
    nnz = int(counts.sum(dtype=np.int64))
    columns = artifact.array(f"{prefix}.columns", "u1", (packed_bytes(nnz, bits_for(n_columns)),))
    return {"counts": counts, "columns": columns}


def _read_values(
    artifact: Artifact, prefix: str, nnz: int, n_rows: int, n_columns: int, values: str
) -> dict[str, NDArray]:
    name = f"{prefix}.codes"
    if values in ("fp32", "fp16"):
        codes = artifact.array(name, "f4" if values == "fp32" else "f2", (nnz,))
        # in float64, and so that nothing passes that is no number
        if not float(np.abs(codes).max(initial=0)) <= LARGEST_VALUE:
            artifact.refuse(f"{name} must be finite numbers of at most {LARGEST_VALUE:.0e}")
        return {"codes": codes}
    if values == "int8":
        parts = {"codes": artifact.array(name, "i1", (nnz,))}
        parts["scales"] = artifact.array(f"{prefix}.scales", "f4", (n_columns,))
    else:
        parts = {"codes": artifact.array(name, "u1", (packed_bytes(nnz, 4),))}
        parts["scales"] = artifact.array(f"{prefix}.scales", "f2", (n_rows,))
        parts["unit"] = artifact.array(f"{prefix}.unit", "f4", (1,))
    for name in ("scales", "unit"):
        if name in parts and not (np.isfinite(parts[name]).all() and (parts[name] >= 0).all()):
            artifact.refuse(f"{prefix}.{name} must be finite numbers >= 0")
    with np.errstate(over="ignore"):
        most = np.float32(128) * parts["scales"].max(initial=0).astype(np.float32) * parts.get("unit", [1])[0]
    if not most <= LARGEST_VALUE:
        artifact.refuse(f"{prefix}.scales must be smaller")
    return parts


def _bit_counts(bitmap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How many bits of each byte are set."""
    return _SET_BITS[bitmap]


_SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
