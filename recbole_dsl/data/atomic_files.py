"""RecBole's atomic files as text: their headers, and checks of lines that RecBole would misread."""

import codecs
import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import numpy as np

from recbole_dsl.errors import DSLError, is_number, shown

TYPES = ("token", "token_seq", "float", "float_seq")

# bytes read at a time: many for a call of NumPy, few beside what RecBole makes of the file
_CHUNK = 1 << 24
# encodings in which a separator or a line break is one byte that is part of no other character
_BY_BYTES = {"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252"}
# words that pandas reads as a missing value, and those for infinity; a chunk has one of them only if it has one of
# the parts, which are found much faster
_MISSING = rb"[+-]?nan|n/a|<na>|#n/a|#na|#n/a n/a|null|none|na|-?1\.#ind|-?1\.#qnan"
_INFINITE = rb"[+-]?inf|[+-]?infinity"
_PARTS = (b"na", b"n/a", b"null", b"none", b"inf", b"1.#")
_ODD = re.compile(rb"(?i:" + _MISSING + rb"|" + _INFINITE + rb")")
# the same in the spellings that pandas knows
_AS_MISSING = {
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of an atomic file, as the header declares it."""

    name: str
    type: str


@dataclass(frozen=True)
class AtomicFile:
    """An atomic file and how RecBole is told to read it.

    Attributes:
        source: what RecBole calls it: "inter", "user", "item", "kg", ...
        ids: names of the columns that identify users, items and entities.
    """

    path: str
    dataset: str
    source: str
    separator: str = "\t"
    sequence_separator: str = " "
    encoding: str | None = None
    ids: tuple[str, ...] = ()

    def refuse(self, problem: str, line: int | None = None, column: int | None = None) -> NoReturn:
        """Raise a DSLError that names this file, the line and the column, both counted from 1."""
        place = f", line {line}" if line else ""
        place += f", column {column}" if column else ""
        raise DSLError(f"dataset={self.dataset}: {os.path.basename(self.path)}{place}: {problem}")

    def header(self) -> list[Column]:
        """The columns that the first line names.

        Raises:
            DSLError: if there is no such file, it cannot be read, or its first line is no header.
        """
        if not os.path.isfile(self.path):
            self.refuse("is a folder, and must be a file" if os.path.isdir(self.path) else "must be there")
        try:
            with open(self.path, "rb") as file:
                start = file.read(_CHUNK)
        except OSError as error:
            self.refuse(f"must be readable: {error.strerror}")
        self._refuse_other_encodings(start)
        if not start.strip():
            self.refuse("is empty")
        try:
            with open(self.path, encoding=self._codec) as file:
                first = file.readline().removesuffix("\n")
                has_lines = any(line.strip() for line in file)
        except UnicodeError:
            self._refuse_undecoded()
        if not first.strip():
            self.refuse("must be a header, such as user_id:token", line=1)
        columns = self._columns(first)
        if not has_lines:
            self.refuse("has no lines below its header")
        return columns

    def check_lines(self, columns: list[Column]) -> None:
        """Refuse lines that RecBole would silently misread or drop.

        These have more or fewer columns than the header, or a word for a missing value in place of an id or a
        number. An empty field is a missing value, as in RecBole. Further columns are ignored in a last line
        without a line end.

        Raises:
            DSLError: with the line and the column.
        """
        with open(self.path, "rb") as file:
            if len(self.separator) > 1:
                # pandas takes it for a regular expression
                return
            plain = self.separator.isascii() and self._codec_name in _BY_BYTES
            if not (plain and self._check_bytes(file, columns)):
                self._check_records(columns)

    def check_numbers(self, columns: list[Column]) -> None:
        """Refuse the first field that should be a number and is not; slow, for use after RecBole has failed."""
        if len(self.separator) > 1:
            return
        for line, fields in self._records():
            for place, (column, field) in enumerate(zip(columns, fields), start=1):
                if column.type.startswith("float"):
                    parts = field.split(self.sequence_separator) if column.type == "float_seq" else [field]
                    for part in parts:
                        if part and not is_number(part) and part not in _AS_MISSING:
                            self.refuse(f"{column.name}={shown(part)!r}: must be a number", line, place)

    @property
    def _codec(self) -> str:
        return self.encoding or "utf-8"

    @property
    def _codec_name(self) -> str:
        return codecs.lookup(self._codec).name

    def _columns(self, first: str) -> list[Column]:
        columns = []
        for place, field in enumerate(first.split(self.separator), start=1):
            name, _, kind = field.partition(":")
            if kind not in TYPES or not name:
                hint = f"must be a name and a type, one of {', '.join(TYPES)}, such as user_id:token"
                if place == 1 and self.separator not in first:
                    hint += f"; and columns are separated by {self.separator!r}, of which the line has none"
                self.refuse(f"{shown(repr(field))} {hint}", 1, place)
            if name in (column.name for column in columns):
                self.refuse(f"{name} is the name of two columns", 1, place)
            columns.append(Column(name, kind))
        return columns

    def _refuse_other_encodings(self, start: bytes) -> None:
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and self._codec_name in _BY_BYTES:
            self.refuse(f"is in UTF-16: must be saved in {self._codec}, or read with encoding=utf-16")
        if start.startswith(codecs.BOM_UTF8) and self._codec_name != "utf-8-sig":
            self.refuse(
                "begins with a byte order mark, which would be part of the first name: must be saved without, or "
                "read with encoding=utf-8-sig",
                line=1,
            )
        if self._codec_name in _BY_BYTES and b"\0" in start:
            place = start.index(b"\0")
            self.refuse("has a zero byte: must be text", start.count(b"\n", 0, place) + 1)

    def _refuse_undecoded(self) -> NoReturn:
        with open(self.path, "rb") as file:
            content = file.read()
        try:
            content.decode(self._codec)
            place = 0
        except UnicodeDecodeError as error:
            place = error.start
        except UnicodeError:
            # an encoding that requires a byte order mark
            place = 0
        line_start = max(content.rfind(b"\n", 0, place), content.rfind(b"\r", 0, place)) + 1
        self.refuse(
            f"a byte that is not {self._codec}: must be saved as that, or read with the encoding that it is in, "
            "such as encoding=latin-1",
            content.count(b"\n", 0, place) + 1,
            content.count(self.separator.encode(), line_start, place) + 1,
        )

    def _check_bytes(self, file: BinaryIO, columns: list[Column]) -> bool:
        """Check the lines in large chunks; False if quotes or lone carriage returns need a slower reader."""
        separator, lines_before, rest = ord(self.separator), 0, b""
        marks = re.escape(self.separator.encode() + b"\n" + self.sequence_separator.encode())
        odd = re.compile(rb"(?<=[" + marks + rb"])(?:" + _ODD.pattern + rb")(?=[" + marks + rb"])")
        while chunk := file.read(_CHUNK):
            chunk = (rest + chunk).replace(b"\r\n", b"\n")
            if len(chunk) and (b'"' in chunk or b"\r" in chunk[:-1]):
                return False
            end = chunk.rfind(b"\n") + 1
            chunk, rest = chunk[:end], chunk[end:]
            self._check_chunk(chunk, lines_before, columns, separator, odd)
            lines_before += chunk.count(b"\n")
        if rest:
            # a truncated download may have further columns in its last line, as RecBole's own test data has
            rest = self.separator.encode().join(rest.rstrip(b"\r").split(self.separator.encode())[: len(columns)])
            self._check_chunk(rest + b"\n", lines_before, columns, separator, odd)
        return True

    def _check_chunk(
        self, chunk: bytes, lines_before: int, columns: list[Column], separator: int, odd: re.Pattern
    ) -> None:
        try:
            chunk.decode(self._codec)
        except UnicodeError:
            self._refuse_undecoded()
        values = np.frombuffer(chunk, np.uint8)
        ends = np.flatnonzero(values == ord("\n"))
        found = np.searchsorted(np.flatnonzero(values == separator), ends)
        counts = np.diff(found, prepend=0) + 1
        for number in np.flatnonzero(counts != len(columns)).tolist():
            start = ends[number - 1] + 1 if number else 0
            if chunk[start : ends[number]].strip():
                self._refuse_count(int(counts[number]), len(columns), lines_before + number + 1)
        lower = chunk.lower()
        if not any(part in lower for part in _PARTS):
            return
        for match in odd.finditer(b"\n" + chunk):
            place = match.start() - 1
            line_start = chunk.rfind(b"\n", 0, place) + 1
            line = lines_before + chunk.count(b"\n", 0, place) + 1
            number = chunk.count(bytes([separator]), line_start, place)
            fields = chunk[line_start : chunk.find(b"\n", place)].decode(self._codec).split(self.separator)
            if number < len(columns) and (
                columns[number].type == "float_seq" or len(fields[number]) == len(match[0])
            ):
                self._check_odd(match[0].decode(), columns[number], line, number + 1)

    def _check_records(self, columns: list[Column]) -> None:
        lines_before = 1
        for line, fields in self._records():
            if len(fields) != len(columns):
                self._refuse_count(len(fields), len(columns), line)
            for place, (column, field) in enumerate(zip(columns, fields), start=1):
                if "\n" in field and self.separator in field:
                    self.refuse("a quote that is opened here is not closed on this line", lines_before + 1, place)
                parts = field.split(self.sequence_separator) if column.type == "float_seq" else [field]
                for part in parts:
                    if len(part) < 10 and _ODD.fullmatch(part.encode()):
                        self._check_odd(part, column, line, place)
            lines_before = line

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Each record below the header, split as pandas splits it, with the number of its last line."""
        with open(self.path, encoding=self._codec, newline="") as file:
            reader = csv.reader(file, delimiter=self.separator, strict=True)
            try:
                next(reader, None)
                for fields in reader:
                    if len(fields) > 1 or (fields and fields[0].strip()):
                        yield reader.line_num, fields
            except csv.Error as error:
                self.refuse(f"quotes must be closed, and stand around a whole field: {error}", reader.line_num)
            except UnicodeError:
                self._refuse_undecoded()

    def _refuse_count(self, count: int, wanted: int, line: int) -> NoReturn:
        columns = "1 column" if count == 1 else f"{count} columns"
        self.refuse(f"{columns}: must be {wanted}, as in the header, separated by {self.separator!r}", line)

    def _check_odd(self, text: str, column: Column, line: int, place: int) -> None:
        is_number = column.type.startswith("float")
        if is_number and text.lower().lstrip("+-").startswith("inf"):
            self.refuse(f"{column.name}={text}: must be a finite number", line, place)
        if text not in _AS_MISSING and not is_number:
            return
        if column.name in self.ids and column.type == "token":
            self.refuse(
                f"{column.name}={text}: must be an id, and pandas reads it as a missing value", line, place
            )
        if is_number and self.source == "inter":
            self.refuse(
                f"{column.name}={text}: must be a finite number, or empty where it is missing", line, place
            )
