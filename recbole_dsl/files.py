"""Files that appear under their name when they are complete, or not at all, and those that the package has."""

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from recbole_dsl.errors import DSLError

try:
    import fcntl
except ImportError:
    fcntl = None

# what must be free in a folder that is to be written
_ROOM = 2**20
_PACKAGE = os.path.dirname(__file__)


def or_shipped(path: str) -> str:
    """``path``, or where it is not there but begins with properties/, the file of that name in the package."""
    shipped = os.path.join(_PACKAGE, path)
    is_ours = os.path.normpath(path).split(os.sep)[0] == "properties"
    return shipped if is_ours and not os.path.exists(path) and os.path.isfile(shipped) else path


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A new file, to write and read, that appears at ``path`` at the end of the context.

    A kill at any moment, a full disk or an error leaves what was at ``path`` as it was, and nothing beside it.

    Raises:
        OSError: if it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with _nameless(folder) as file:
        yield file
        _give_name(file, folder, name)


def require_writable(folder: str, option: str = "checkpoint_dir") -> None:
    """Make ``folder`` if it is not there, and see that a file can be written in it.

    Raises:
        DSLError: if not, naming ``option``.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with _nameless(os.path.abspath(folder)) as file:
            file.write(bytes(_ROOM))
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
