"""The artifact: one safetensors file that runs nothing when it is read, and is checked before it is believed."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recbole_dsl.errors import DSLError, one_line, shown
from recbole_dsl.files import whole_file

FORMAT = "recbole_dsl.serving"
VERSION = 4
# our header is a text among safetensors' metadata
_KEY = "recbole_dsl"
# safetensors' names of the types that an artifact may hold
TYPES = {"U8": "u1", "U16": "u2", "U32": "u4", "I8": "i1", "F16": "f2", "F32": "f4"}
# arrays that every kind of model may have
_COMMON = ("users.", "items.", "seen.", "popularity")
# how long a header may be, for safetensors too
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Artifact:
    """The content of an artifact.

    Attributes:
        path: where it was read.
        header: JSON: ``kind`` ("product" or "network"), ``model``, ``dataset``, ``n_users``, ``n_items``,
            ``options`` (those of the export) and ``scorer``, whose content depends on the kind.
        arrays: by name; the names of a kind's own begin with the kind and a dot.
    """

    path: str
    header: dict[str, Any]
    arrays: dict[str, NDArray]

    def array(self, name: str, dtypes: str, shape: tuple[int | None, ...]) -> NDArray:
        """The array ``name``.

        Args:
            dtypes: the types that it may have, as in "u1 u2".
            shape: with None for any length.

        Raises:
            DSLError: if it is missing, or of another type or shape.
        """
        if name not in self.arrays:
            self.refuse(f"has no {name}")
        array, allowed = self.arrays[name], [np.dtype(dtype) for dtype in dtypes.split()]
        if array.dtype.newbyteorder("=") not in allowed:
            self.refuse(f"{name} is {array.dtype}, must be {' or '.join(dtype.name for dtype in allowed)}")
        if array.ndim != len(shape) or any(want not in (None, has) for want, has in zip(shape, array.shape)):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            self.refuse(f"{name} is {array.shape}, must be ({wanted})")
        return array

    def refuse(self, words: str) -> NoReturn:
        """Raise a DSLError; ``words`` say what is wrong with the file."""
        raise refused(self.path, words)


def refused(path: str, words: str) -> DSLError:
    """The error for the artifact at ``path``; ``words`` say what is wrong with it."""
    return DSLError(f"artifact={shown(path)}: {one_line(words)}")


def write_artifact(
    path: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray],
    check: Callable[[bytes], None] = lambda content: None,
) -> int:
    """Write an artifact that appears at ``path`` when it is complete; what was there stays until then.

    Args:
        header: as in `Artifact`; the format, the version and the checksum are added.
        check: is given all bytes before there is a file; may raise an error.

    Returns:
        How many bytes it has.

    Raises:
        DSLError: if it cannot be written.
    """
    whole = {**header, "format": FORMAT, "version": VERSION}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    whole["checksum"] = _checksum(whole, contiguous)
    content = save(contiguous, {_KEY: _text(whole)})
    check(content)
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise DSLError(f"artifact={shown(path)}: must be a place that can be written: {error.strerror}") from error
    return len(content)


def is_artifact(path: str) -> bool:
    """Whether the file at ``path`` says that it is an artifact, whole or damaged, of any version."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            text = json.loads(file.read(min(length, _LONGEST_HEADER)))["__metadata__"][_KEY]
            return json.loads(text)["format"] == FORMAT
        except (ValueError, TypeError, LookupError, RecursionError):
            return False


def read_artifact(path: str | os.PathLike) -> Artifact:
    """The content of a file that `write_artifact` wrote; its checksum is compared before anything is used.

    A checksum shows damage, not intent: whoever uses an array checks that it makes sense.

    Raises:
        DSLError: if the file is missing, damaged, cut off, not ours or of a later version.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise refused(path, "must be an existing file")
    try:
        with safe_open(path, framework="np") as file:
            header, arrays = _header(path, (file.metadata() or {}).get(_KEY)), {}
            for name in file.keys():  # noqa: SIM118
                kind = file.get_slice(name).get_dtype()
                if kind not in TYPES:
                    raise refused(path, f"{name} is {kind}, must be one of {', '.join(TYPES)}")
                if not name.startswith((*_COMMON, f"{header['kind']}.")):
                    raise refused(path, f"{shown(name)} is unknown")
                arrays[name] = file.get_tensor(name)
    except DSLError:
        raise
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise refused(path, "must be a whole artifact of recbole_dsl") from error
    if _checksum(header, arrays) != header["checksum"]:
        raise refused(path, "must be a whole artifact of recbole_dsl, but its checksum differs")
    return Artifact(path, header, arrays)


def _header(path: str, text: str | None) -> dict[str, Any]:
    try:
        header = json.loads(text or "null", parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise refused(path, "must be an artifact of recbole_dsl, but its header is no JSON") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise refused(path, "must be an artifact of recbole_dsl")
    version = header.get("version")
    if not _is_count(version):
        raise refused(path, f"has version {shown(version)}, must be a number from 1 to {VERSION}")
    if version > VERSION:
        raise refused(path, f"has version {version}, must be at most {VERSION}: update recbole_dsl")
    for name, (is_right, words) in _SCHEMA.items():
        if name not in header:
            raise refused(path, f"has no {name}")
        if not is_right(header[name]):
            raise refused(path, f"{name} must be {words}")
    return header


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> str:
    """SHA-256 of the header, and of the name, type, shape and content of every array."""
    names = sorted(arrays)
    listed = [[name, arrays[name].dtype.str, list(arrays[name].shape)] for name in names]
    digest = hashlib.sha256(_text([{k: v for k, v in header.items() if k != "checksum"}, listed]).encode())
    for name in names:
        digest.update(arrays[name].data if arrays[name].size else b"")
    return digest.hexdigest()


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _no_number(word: str) -> NoReturn:
    raise ValueError(word)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31 - 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 200 and value.isprintable()


_SCHEMA = {
    "kind": (lambda value: _is_text(value) and value.isidentifier(), "the name of a kind"),
    "model": (_is_text, "text"),
    "dataset": (_is_text, "text"),
    "n_users": (_is_count, "a number >= 1"),
    "n_items": (_is_count, "a number >= 1"),
    "options": (lambda value: isinstance(value, dict), "options by their names"),
    "scorer": (lambda value: isinstance(value, dict), "values by their names"),
    "checksum": (_is_text, "text"),
}
