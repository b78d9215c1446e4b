"""Write files whole or not at all, and refuse to replace files of other kinds."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from recbole_dsl.errors import DSLError, refusal

# bytes that must be free in a folder that is to be written
_ROOM = 2**20
_PACKAGE = os.path.dirname(__file__)


def or_shipped(path: str) -> str:
    """``path``; if it does not exist and begins with properties/, the file of that name in the package."""
    shipped = os.path.join(_PACKAGE, path)
    is_ours = os.path.normpath(path).split(os.sep)[0] == "properties"
    return shipped if is_ours and not os.path.exists(path) and os.path.isfile(shipped) else path


@contextmanager
def whole_file(path: str) -> Iterator[BinaryIO]:
    """A new file, to write and read, that appears at ``path`` at the end of the context.

    A kill at any moment, a full disk or an error leaves what was at ``path`` as it was. Where a file must have a
    name (NFS, macOS, Windows), a killed process leaves a ``.recbole-dsl-*.part`` beside it, which nobody removes:
    no lock tells whether another machine still writes to it.

    Raises:
        OSError: if it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".recbole-dsl-{secrets.token_hex(8)}.part")
    try:
        # not of tempfile, which forbids that the file gets a name, and whose named files outlive a kill
        descriptor, has_name = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), False
    except (AttributeError, OSError):
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        descriptor, has_name = os.open(part, flags, 0o666), True
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            if not has_name:
                with _opened(folder) as place:
                    # only with a folder's descriptor does Python follow the link to the file itself
                    os.link(f"/proc/self/fd/{descriptor}", part, dst_dir_fd=place)
        os.replace(part, os.path.join(folder, name))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    if os.name != "nt":
        with _opened(folder) as place:
            # the name is in the folder, which must reach the disk too
            os.fsync(place)


def write_whole(path: str, write: Callable[[BinaryIO], object], option: str) -> None:
    """Let ``write`` fill a `whole_file` at ``path``.

    Args:
        option: the one that names the folder, for the error.

    Raises:
        DSLError: if it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    try:
        with whole_file(path) as file:
            write(file)
    except (OSError, RuntimeError) as error:
        raise DSLError(f"{option}={folder}: cannot write {name}: {_reason(error, folder)}") from error


def write_text(path: str, text: str, option: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, as `write_whole` does."""
    write_whole(path, lambda file: file.write(text.encode()), option)


def copy_whole(source: str, path: str, option: str) -> None:
    """Copy the file ``source`` to ``path``, as `write_whole` does."""

    def copy(file: BinaryIO) -> None:
        with open(source, "rb") as opened:
            shutil.copyfileobj(opened, file)

    write_whole(path, copy, option)


def output_file(
    path: str | os.PathLike, option: str, kind: str, is_ours: Callable[[str], bool], inputs: Iterable[Any] = ()
) -> str:
    """The place of the output file ``path``, with links followed.

    Args:
        option: the one that names it, for the error.
        kind: what is written, for the error: "an artifact".
        is_ours: tells by its content whether an existing file is of that kind.
        inputs: files that are read; those that are None or not there are passed over.

    Raises:
        DSLError: if it is one of ``inputs``, under whatever name, or no file, or has content of another kind.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise refusal(option, path, "the path of a file")
    name = os.fspath(path)
    place = os.path.realpath(name)
    if name.endswith(tuple(filter(None, (os.sep, os.altsep)))) or os.path.isdir(place):
        raise refusal(option, name, "a file, and is a folder")
    refuse_inputs(place, option, inputs)
    try:
        if os.path.lexists(place) and not os.path.isfile(place):
            raise refusal(option, name, "a file, and is a device, a pipe or a broken link")
        # an empty file, as mktemp makes it, may be replaced
        if os.path.exists(place) and os.path.getsize(place) and not is_ours(place):
            raise refusal(option, name, f"a new file, an empty one or {kind}, and is another file")
    except OSError as error:
        raise DSLError(f"{option}={name}: must be a file that can be read: {error.strerror}") from error
    return place


def refuse_inputs(path: str, option: str, inputs: Iterable[Any]) -> None:
    """Raise a DSLError if ``path`` is one of ``inputs``: the same file, whatever it is called."""
    for file in inputs:
        if file is not None and os.path.exists(file) and os.path.exists(path) and os.path.samefile(file, path):
            raise refusal(option, path, f"another file than {os.fspath(file)}, which is read")


def require_writable(folder: str, option: str = "checkpoint_dir") -> None:
    """Make ``folder`` if it is not there, and see that a file can be written in it.

    Raises:
        DSLError: if not, naming ``option``.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
    except (FileExistsError, NotADirectoryError) as error:
        raise DSLError(f"{option}={folder}: must be a folder") from error
    except OSError as error:
        raise DSLError(f"{option}={folder}: must be a folder that can be written: {error.strerror}") from error


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reason(error: Exception, folder: str) -> str:
    """Why writing failed: PyTorch's writer hides what the system said in errors of its own."""
    causes = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if os.path.isdir(folder) and shutil.disk_usage(folder).free < _ROOM:
        return "No space left on device"
    return " ".join(str(error).split())
