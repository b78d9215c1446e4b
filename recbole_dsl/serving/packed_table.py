"""A table of vectors as an artifact stores it: few bits a value, and the smallest index for its density."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.bits import SET_BITS, bits_for, pack, packed_bytes, unpack
from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask, ascend, column_type, offsets_of
from recbole_dsl.serving.packed_lists import PackedLists
from recbole_dsl.serving.quantising import (
    LARGEST_VALUE,
    N_LEVELS,
    VALUES,
    decoded_scales,
    int8_is_smaller,
    quantise,
    signed_levels,
)

# which entries there are: every one; a bit for each; ascending lists of their places, one for some rows at a time;
# or, in earlier files, how many a row has and their columns
INDICES = ("full", "bitmap", "lists", "columns")
# rows whose entries are one list, and the arrays of the lists
_ROWS, _PARTS = 32, ("counts", "high", "low")
MOST_COLUMNS = 2**16
# cells of the blocks of rows that are decoded at once
_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class PackedTable:
    """A matrix (n_rows, n_columns) in the bits that the file has for it; `rows` decodes them.

    Attributes:
        values: one of `VALUES`, how the entries are stored. int8 has a scale for each column, int4 for each row.
        index: one of `INDICES`.
        parts: the arrays: ``codes`` and, depending on values and index, ``levels``, ``scales``, ``unit``,
            ``counts``, ``high``, ``low``, ``columns``, ``bitmap``.
    """

    n_rows: int
    n_columns: int
    values: str
    index: str
    parts: dict[str, NDArray]

    @classmethod
    def of(cls, matrix: CSR, values: str) -> "PackedTable":
        """``matrix`` in few bits; in int8, not int4, if that is smaller, as with fewer than two entries a row.

        Raises:
            DSLError: if ``values`` is none of `VALUES`, or too small for the entries.
        """
        if values not in VALUES:
            raise refusal("values", values, f"one of {', '.join(VALUES)}")
        if matrix.n_columns > MOST_COLUMNS:
            raise DSLError(f"a table of {matrix.n_columns} columns: must have at most {MOST_COLUMNS}")
        if values == "int4" and int8_is_smaller(matrix):
            values = "int8"
        index, parts = _smallest_index(matrix)
        return cls(matrix.n_rows, matrix.n_columns, values, index, {**parts, **quantise(matrix, values)})

    @classmethod
    def read(cls, artifact: Artifact, prefix: str, n_rows: int, description: Any) -> "PackedTable":
        """The table of the arrays whose names begin with ``prefix``.

        Args:
            description: what `describe` returned.

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
        if index == "lists":
            lengths = _lengths(table._lists, n_rows, n_columns)
            if lengths is None:
                artifact.refuse(f"{prefix}.low must ascend within each row")
            # the cached property, so that the lists are decoded once
            vars(table)["offsets"] = offsets_of(lengths)
        parts.update(_read_values(artifact, prefix, table))
        if index == "columns":
            for start, stop in table.blocks():
                columns, offsets = table._columns(start, stop), table.offsets[start : stop + 1]
                if columns.max(initial=0) >= n_columns or not ascend(columns, offsets - offsets[0]):
                    artifact.refuse(
                        f"{prefix}.columns must be within 0..{n_columns - 1} and ascend within each row"
                    )
        return table

    def describe(self) -> dict[str, Any]:
        """What the header says of it, as JSON."""
        return {"n_columns": self.n_columns, "values": self.values, "index": self.index}

    def arrays(self, prefix: str) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name."""
        return {f"{prefix}.{name}": array for name, array in self.parts.items()}

    def places(self) -> CSR:
        """Which entries there are; the value of each is its number, int64."""
        columns = np.concatenate([self._columns(start, stop) for start, stop in self.blocks()])
        return CSR(self.offsets, columns, np.arange(self.nnz), self.n_columns)

    def only(self, places: CSR, rows: Mask, columns: Mask) -> "PackedTable":
        """The table with some of its entries, rows and columns, whose values stay the same to the bit.

        Args:
            places: as `places` returns them, the entries at their new rows and columns.
            rows: (n_rows,) which stay.
            columns: (n_columns,) which stay.
        """
        index, parts = _smallest_index(places)
        codes = self.parts["codes"]
        if self.values == "int4":
            parts["codes"] = pack(unpack(codes, 4, 0, self.nnz)[places.values], 4)
            parts |= {name: part for name, part in self.parts.items() if name in ("levels", "unit")}
            parts["scales"] = self.parts["scales"][rows]
        else:
            parts["codes"] = codes[places.values]
        if self.values == "int8":
            parts["scales"] = self.parts["scales"][columns]
        return PackedTable(places.n_rows, places.n_columns, self.values, index, parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(array.nbytes for array in self.parts.values())

    @property
    def nnz(self) -> int:
        """How many entries there are."""
        return int(self.offsets[-1])

    @cached_property
    def offsets(self) -> Ids:
        """(n_rows + 1,) where the entries of each row begin, and where the last ones end."""
        if self.index == "full":
            return np.arange(self.n_rows + 1) * self.n_columns
        if self.index == "bitmap":
            return offsets_of(SET_BITS[self.parts["bitmap"]].sum(1, dtype=np.int64))
        if self.index == "columns":
            return offsets_of(self.parts["counts"])
        return offsets_of(_lengths(self._lists, self.n_rows, self.n_columns))

    def rows(self, start: int, stop: int) -> CSR:
        """The rows from ``start`` to ``stop``, decoded."""
        first, last = self.offsets[start], self.offsets[stop]
        codes = self.parts["codes"]
        offsets = self.offsets[start : stop + 1] - first
        matrix = CSR(offsets, self._columns(start, stop), codes[first:last], self.n_columns)
        if self.values in ("fp32", "fp16"):
            decoded = matrix.values.astype(np.float32)
        elif self.values == "int8":
            decoded = matrix.values * self.parts["scales"][matrix.column_of_entry()]
        else:
            scales = decoded_scales(self.parts["scales"][start:stop]) * self.parts["unit"][0]
            levels = signed_levels(self.parts.get("levels"))[unpack(codes, 4, first, last)]
            decoded = levels * np.repeat(scales, matrix.lengths)
        return CSR(offsets, matrix.columns, decoded, self.n_columns)

    def all_rows(self) -> CSR:
        """Every row, decoded a block at a time to bound the memory that this takes beside the result."""
        values = np.empty(self.nnz, np.float32)
        columns = np.empty(0 if self.index == "full" else self.nnz, column_type(self.n_columns))
        for start, stop in self.blocks():
            here, block = slice(self.offsets[start], self.offsets[stop]), self.rows(start, stop)
            values[here], columns[here] = block.values, block.columns
        return CSR(self.offsets, columns, values, self.n_columns)

    def blocks(self, cells: int = _BLOCK) -> Iterator[tuple[int, int]]:
        """First row and end row of blocks that have about ``cells`` cells when they are dense."""
        height = max(1, cells // self.n_columns)
        for start in range(0, self.n_rows, height):
            yield start, min(start + height, self.n_rows)

    def dense_rows(self, ids: Ids) -> Floats:
        """(n, n_columns) the rows ``ids`` (n,); a few take little time, however many rows there are."""
        out = np.zeros((len(ids), self.n_columns), np.float32)
        if 8 * len(ids) < self.n_rows:
            # consecutive rows are decoded together
            ends = [*(np.flatnonzero(np.diff(ids) != 1) + 1).tolist(), len(ids)]
            for first, last in zip([0, *ends], ends):
                if first < last:
                    out[first:last] = self.rows(ids[first], ids[last - 1] + 1).dense()
            return out
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        for start, stop in self.blocks():
            first, last = np.searchsorted(ascending, (start, stop))
            if first < last:
                out[order[first:last]] = self.rows(start, stop).dense()[ascending[first:last] - start]
        return out

    @cached_property
    def _lists(self) -> PackedLists:
        return PackedLists(_ROWS * self.n_columns, False, *(self.parts[name] for name in _PARTS))

    def _columns(self, start: int, stop: int) -> NDArray[np.unsignedinteger]:
        """(entries,) the columns of the rows from ``start`` to ``stop``; (0,) of a full table."""
        if self.index == "columns":
            bits = bits_for(self.n_columns)
            return unpack(self.parts["columns"], bits, self.offsets[start], self.offsets[stop])
        dtype = column_type(self.n_columns)
        if self.index == "full":
            return np.zeros(0, dtype)
        if self.index == "lists":
            first = start // _ROWS
            lists, _ = self._lists.between(first, -(-stop // _ROWS))
            begin, end = self.offsets[[start, stop]] - self.offsets[first * _ROWS]
            return (lists.columns[begin:end] % self.n_columns).astype(dtype)
        bits = np.unpackbits(self.parts["bitmap"][start:stop], axis=1, count=self.n_columns, bitorder="little")
        return np.nonzero(bits)[1].astype(dtype)


def _lengths(lists: PackedLists, n_rows: int, n_columns: int) -> Ids | None:
    """(n_rows,) how many entries each row has; None if a list does not ascend."""
    lengths, first = np.zeros(len(lists) * _ROWS, np.int64), 0
    for block, _ in lists.blocks():
        if not ascend(block.columns, block.offsets):
            return None
        rows = block.row_of_entry() * _ROWS + block.columns // n_columns
        stop = first + block.n_rows * _ROWS
        lengths[first:stop] = np.bincount(rows, minlength=stop - first)
        first = stop
    return lengths[:n_rows]


def _smallest_index(matrix: CSR) -> tuple[str, dict[str, NDArray]]:
    n_rows, n_columns, nnz = matrix.n_rows, matrix.n_columns, len(matrix.values)
    if nnz == n_rows * n_columns:
        return "full", {}
    starts = np.append(matrix.offsets[:-1:_ROWS], nnz)
    places = matrix.row_of_entry() % _ROWS * n_columns + matrix.columns
    lists = PackedLists.of(CSR(starts, places), _ROWS * n_columns)
    parts = {name: getattr(lists, name) for name in _PARTS}
    if n_rows * packed_bytes(n_columns, 1) < sum(part.nbytes for part in parts.values()):
        bits = np.zeros((n_rows, n_columns), bool)
        bits[matrix.row_of_entry(), matrix.columns] = True
        return "bitmap", {"bitmap": np.packbits(bits, axis=1, bitorder="little")}
    return "lists", parts


def _read_index(artifact: Artifact, prefix: str, n_rows: int, n_columns: int, index: str) -> dict[str, NDArray]:
    if index == "full":
        return {}
    if index == "bitmap":
        bitmap = artifact.array(f"{prefix}.bitmap", "u1", (n_rows, packed_bytes(n_columns, 1)))
        if n_columns % 8 and (bitmap[:, -1] >> (n_columns % 8)).any():
            artifact.refuse(f"{prefix}.bitmap must have no bits beyond column {n_columns - 1}")
        return {"bitmap": bitmap}
    if index == "lists":
        lists = PackedLists.read(artifact, prefix, -(-n_rows // _ROWS), _ROWS * n_columns)
        last, _ = lists.between(len(lists) - 1, len(lists))
        if last.columns.max(initial=0) >= (n_rows - (len(lists) - 1) * _ROWS) * n_columns:
            artifact.refuse(f"{prefix}.low must be of {n_rows} rows")
        return {name: getattr(lists, name) for name in _PARTS}
    counts = artifact.array(f"{prefix}.counts", "u1" if n_columns < 2**8 else "u4", (n_rows,))
    if counts.max() > n_columns:
        artifact.refuse(f"{prefix}.counts must be at most {n_columns}")
    nnz = int(counts.sum(dtype=np.int64))
    columns = artifact.array(f"{prefix}.columns", "u1", (packed_bytes(nnz, bits_for(n_columns)),))
    return {"counts": counts, "columns": columns}


def _read_values(artifact: Artifact, prefix: str, table: PackedTable) -> dict[str, NDArray]:
    name, nnz = f"{prefix}.codes", table.nnz
    if table.values in ("fp32", "fp16"):
        codes = artifact.array(name, "f4" if table.values == "fp32" else "f2", (nnz,))
        # as a float64, and so that NaN does not pass
        if not float(np.abs(codes).max(initial=0)) <= LARGEST_VALUE:
            artifact.refuse(f"{name} must be finite numbers of at most {LARGEST_VALUE:.0e}")
        return {"codes": codes}
    if table.values == "int8":
        parts = {"codes": artifact.array(name, "i1", (nnz,))}
        parts["scales"] = artifact.array(f"{prefix}.scales", "f4", (table.n_columns,))
    else:
        parts = {"codes": artifact.array(name, "u1", (packed_bytes(nnz, 4),))}
        parts["scales"] = artifact.array(f"{prefix}.scales", "u1 f2", (table.n_rows,))
        parts["unit"] = artifact.array(f"{prefix}.unit", "f4", (1,))
        # earlier files have none
        if f"{prefix}.levels" in artifact.arrays:
            parts["levels"] = artifact.array(f"{prefix}.levels", "f4", (N_LEVELS,))
    for name in ("levels", "scales", "unit"):
        if name in parts and not (np.isfinite(parts[name]).all() and (parts[name] >= 0).all()):
            artifact.refuse(f"{prefix}.{name} must be finite numbers >= 0")
    with np.errstate(over="ignore"):
        most = decoded_scales(parts["scales"]).max(initial=0) * parts.get("unit", [1])[0]
        most *= np.float32(128) if "levels" not in parts else parts["levels"].max()
    if not most <= LARGEST_VALUE:
        artifact.refuse(f"{prefix}.scales must be smaller")
    return parts
