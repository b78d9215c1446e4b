"""Zip archives that end with a checksum of all before it."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from typing import BinaryIO

from recbole_dsl.files import write_whole
from recbole_dsl.interrupts import held_interrupts

# our comment, which ends the archive and other readers skip
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64
# the record that ends an archive without a comment; its last two bytes are the length of one
_END_RECORD = 22
_CHUNK = 2**20


def write_archive(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a zip archive that appears at ``path``, with its checksum, when it is complete.

    Raises:
        DSLError: if it cannot be written; what was at ``path`` is as it was then.
    """

    def write_all(file: BinaryIO) -> None:
        # PyTorch's writer makes errors of its own of what its file raises, or ends the process
        with held_interrupts():
            write(file)
        _append_checksum(file)

    write_whole(path, write_all, "checkpoint_dir")


def damage(path: str) -> str | None:
    """How the archive at ``path`` differs from what `write_archive` left, or None.

    Any changed bit is found. In an archive without our checksum, those that the checksums of its members find.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _COMMENT))
        end = file.read()
        if end.startswith(_MARK):
            whole = _digest(file, size - _COMMENT) == end[len(_MARK) :]
            return None if whole else "its checksum differs"
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            return (
                f"its part {broken} is damaged" if broken else "its checksum differs" if archive.comment else None
            )
    except Exception:
        # damaged bytes make zipfile raise errors of many kinds
        return "it is cut off, or of another kind"


def has_checksum(path: str) -> bool:
    """Whether ``path`` ends as a file of `write_archive` does."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _COMMENT))
        return file.read(len(_MARK)) == _MARK


def _append_checksum(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(size - _END_RECORD)
    if file.read(4) != b"PK\5\6":
        raise RuntimeError("not a zip archive without a comment")
    file.seek(size - 2)
    file.write(_COMMENT.to_bytes(2, "little"))
    digest = _digest(file, size)
    file.seek(size)
    file.write(_MARK + digest)


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first ``size`` bytes, in hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(_CHUNK, size))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()
