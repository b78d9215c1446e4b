"""Files that are whole or not there, and whose damage is seen."""

import contextlib
import glob
import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from recbole_dsl.errors import DSLError

try:
    import fcntl
except ImportError:
    fcntl = None

# the comment that ends a zip archive, which its readers pass over
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64
# the record that ends an archive without a comment; its last two bytes are the length of one
_END_RECORD = 22
_CHUNK = 2**20


def write_whole(path: str, write: Callable[[BinaryIO], None], option: str = "checkpoint_dir") -> None:
    """Let ``write`` fill a zip archive that appears at ``path``, with its checksum, when it is complete.

    A kill at any moment, a full disk or an error leaves what was at ``path`` as it was, and nothing beside it.

    Args:
        option: what the user named the place by, for the error.

    Raises:
        DSLError: if it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with _nameless(folder) as file:
            write(file)
            _append_checksum(file)
            _give_name(file, folder, name)
    except (OSError, RuntimeError) as error:
        raise DSLError(f"{option}={folder}: cannot write {name}: {_reason(error, folder)}") from error


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


def require_writable(folder: str, option: str = "checkpoint_dir") -> None:
    """Make ``folder`` if it is not there, and see that a file can be written in it.

    Raises:
        DSLError: if not, naming ``option``.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with _nameless(os.path.abspath(folder)) as file:
            file.write(bytes(_CHUNK))
            file.flush()
    except (FileExistsError, NotADirectoryError) as error:
        raise DSLError(f"{option}={folder}: must be a folder") from error
    except OSError as error:
        raise DSLError(f"{option}={folder}: must be a folder that can be written: {error.strerror}") from error


@contextmanager
def _nameless(folder: str) -> Iterator[BinaryIO]:
    """A new file in ``folder``, to write and read, that is gone with the process unless it is given a name."""
    _remove_left_behind(folder)
    part = None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):
        # not on every system, nor on every file system
        part = _part(folder)
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "w+b") as file:
        _lock(file)
        file.part = part
        try:
            yield file
        finally:
            if file.part is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file.part)


def _give_name(file: BinaryIO, folder: str, name: str) -> None:
    file.flush()
    os.fsync(file.fileno())
    # Windows opens no folders, and has no nameless files
    descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if file.part is None:
            file.part = _part(folder)
            # only with a folder's descriptor does Python follow the link to the file itself
            os.link(f"/proc/self/fd/{file.fileno()}", file.part, dst_dir_fd=descriptor)
        os.replace(file.part, os.path.join(folder, name))
        file.part = None
        if descriptor is not None:
            # the name is in the folder, which has to reach the disk too
            os.fsync(descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _part(folder: str) -> str:
    return os.path.join(folder, f".{secrets.token_hex(8)}.part")


def _remove_left_behind(folder: str) -> None:
    """Remove the files that a killed process left without a name of their own; those in use are locked."""
    for part in glob.glob(os.path.join(glob.escape(folder), ".*.part")):
        with contextlib.suppress(OSError), open(part, "rb") as file:
            _lock(file)
            os.unlink(part)


def _lock(file: BinaryIO) -> None:
    """Lock ``file`` for this process; an OSError if another has it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
