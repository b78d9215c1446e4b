"""Archives that are whole or not there, and whose damage is seen."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from typing import BinaryIO

from recbole_dsl.errors import DSLError
from recbole_dsl.files import whole_file

# the comment that ends a zip archive, which its readers pass over
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64
# the record that ends an archive without a comment; its last two bytes are the length of one
_END_RECORD = 22
_CHUNK = 2**20


def write_whole(path: str, write: Callable[[BinaryIO], None], option: str = "checkpoint_dir") -> None:
    """Let ``write`` fill a zip archive that appears at ``path``, with its checksum, when it is complete.

    A kill at any moment, a full disk or an error leaves what was at ``path`` as it was; see `whole_file`.

    Args:
        option: what the user named the place by, for the error.

    Raises:
        DSLError: if it cannot be written.
    """

    def write_archive(file: BinaryIO) -> None:
        write(file)
        _append_checksum(file)

    _write(path, write_archive, option)


def write_text(path: str, text: str, option: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all, as `write_whole`."""
    _write(path, lambda file: file.write(text.encode()), option)


def copy_whole(source: str, path: str, option: str) -> None:
    """Copy the file ``source`` to ``path``, whole or not at all, as `write_whole`."""

    def copy(file: BinaryIO) -> None:
        with open(source, "rb") as opened:
            shutil.copyfileobj(opened, file)

    _write(path, copy, option)


def damage(path: str) -> str | None:
    """What is wrong with the archive at ``path`` if it is not as `write_whole` left it, or None.

    Any change of a bit is seen; of an archive without our checksum, those that the checksums of its members see.
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
        # zipfile raises what the bytes at hand happen to lead to
        return "it is cut off, or of another kind"


def has_checksum(path: str) -> bool:
    """Whether ``path`` ends as a file of `write_whole` does."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _COMMENT))
        return file.read(len(_MARK)) == _MARK


def _write(path: str, write: Callable[[BinaryIO], object], option: str) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with whole_file(path) as file:
            write(file)
    except (OSError, RuntimeError) as error:
        raise DSLError(f"{option}={folder}: cannot write {name}: {_reason(error, folder)}") from error


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


def _reason(error: Exception, folder: str) -> str:
    """Why writing failed: PyTorch's writer hides what the system said in errors of its own."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if os.path.isdir(folder) and shutil.disk_usage(folder).free < _CHUNK:
        return "No space left on device"
    return " ".join(str(error).split())
