"""A cache on disk of plain data and arrays, which are memory-mapped when they are read."""

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.environment import installed_versions
from recbole_dsl.files import whole_file

_MAGIC = b"rdslcach"
if TYPE_CHECKING:
    from recbole.config import Config

# an entry depends on these packages and folders, beside its key
_PACKAGES = "numpy", "pandas", "pyarrow", "recbole", "scipy", "torch"
_FOLDERS = "compat", "data", "initialisation", "sparse", "topology"
_PREFIX, _SUFFIX = "recbole-dsl-", ".cache"
# the most bytes of all entries; the least recently used one is dropped first
_MOST = 10 * 2**30
_ALIGNED = 64
_START = len(_MAGIC) + 8 + 32
_A_DAY = 86_400
_CHUNK = 1 << 20
_NUMBERS = "biuf"


class NotKept(Exception):
    """Raised for a value that cannot be cached."""


class Cache:
    """The entries in ``folder``. One that cannot be written, or is damaged, counts as missing.

    An entry is a file that appears when it is complete. Its checksums are compared before it is used. The entries
    of a group differ in their options.
    """

    def __init__(self, folder: str):
        self._folder = folder

    def read(self, group: str, options: Mapping[str, str] | None = None, config: "Config | None" = None) -> Any:
        """The value of the entry of ``group`` with these ``options``, or those of ``config``; None if missing.

        Its arrays are memory-mapped: processes share them until they write to them.
        """
        for path in self._paths(group):
            try:
                header, content = _opened(path)
                if header["group"] != group:
                    continue
                wanted = options or {}
                if config is not None:
                    wanted = {name: repr(config[name]) for name in header["options"]}
                if header["options"] != wanted:
                    continue
                arrays = [_array(content, one) for one in header["arrays"]]
                value = _decoded(header["value"], arrays)
            except FileNotFoundError:
                # another process has dropped it in the meantime
                continue
            except Exception as error:
                # damaged bytes may raise anything
                getLogger().warning(f"data_cache: {path} is damaged or not an entry, and is made again: {error}")
                with contextlib.suppress(OSError):
                    os.unlink(path)
                continue
            with contextlib.suppress(OSError):
                os.utime(path)
            return value
        return None

    def write(self, group: str, options: Mapping[str, str], value: Any) -> None:
        """Write ``value``; if that is not possible, the log says why."""
        try:
            self._write(group, options, value)
        except NotKept as error:
            getLogger().debug(f"data_cache: not kept: {error}")
        except OSError as error:
            getLogger().warning(f"data_cache={self._folder}: cannot be written: {error.strerror}")

    def _write(self, group: str, options: Mapping[str, str], value: Any) -> None:
        arrays: list[NDArray] = []
        tree = _encoded(value, arrays, {})
        size = sum(array.nbytes for array in arrays)
        if size > _MOST:
            raise NotKept(f"{size:,} bytes are more than the {_MOST:,} of all entries")
        listed, offset = [], 0
        for array in arrays:
            crc = zlib.crc32(_bytes(array))
            listed.append({"type": array.dtype.str, "shape": array.shape, "at": offset, "crc": crc})
            offset += -(-array.nbytes // _ALIGNED) * _ALIGNED
        header = json.dumps({"group": group, "options": dict(options), "value": tree, "arrays": listed}).encode()
        # aligns what follows
        header += b" " * (-(_START + len(header)) % _ALIGNED)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        if shutil.disk_usage(self._folder).free < 2 * (size + len(header)):
            raise NotKept("the disk is nearly full")
        digest = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:16]
        with whole_file(os.path.join(self._folder, f"{_PREFIX}{group}-{digest}{_SUFFIX}")) as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + hashlib.sha256(header).digest() + header)
            for array in arrays:
                file.write(_bytes(array))
                file.write(bytes(-array.nbytes % _ALIGNED))
        self._drop_oldest()

    def _paths(self, group: str) -> list[str]:
        """The files of the entries of ``group``, the most recently used first."""
        found = [path for _, path, _ in self._files() if os.path.basename(path).startswith(f"{_PREFIX}{group}-")]
        return found[::-1]

    def _files(self) -> list[tuple[float, str, int]]:
        """(time, path, bytes) of every file of the cache, the least recently used first."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                name = entry.name.removeprefix(".")
                if name.startswith(_PREFIX) and name.endswith((_SUFFIX, ".part")):
                    with contextlib.suppress(OSError):
                        stat = entry.stat()
                        found.append((stat.st_mtime, entry.path, stat.st_size))
        return sorted(found)

    def _drop_oldest(self) -> None:
        files = self._files()
        total = sum(size for *_, size in files)
        for when, path, size in files:
            # a killed process leaves one where files have a name before they are complete
            is_left = path.endswith(".part")
            if (is_left and when < time.time() - _A_DAY) or (not is_left and total > _MOST):
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size


def cache_of(config: "Config") -> Cache | None:
    """The cache that the option ``data_cache`` names: a folder, True for the user's cache, or False for none."""
    option = config["data_cache"]
    if option is False:
        return None
    if isinstance(option, str):
        return Cache(os.path.abspath(os.path.expanduser(option)))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Cache(os.path.join(home, "recbole_dsl"))


def group_of(*parts: Any) -> str:
    """A key of 32 characters: a hash of ``parts``, of our code, and of the releases that an entry depends on."""
    return hashlib.sha256(repr((_code(), parts)).encode()).hexdigest()[:32]


def digest_of(path: str) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _code() -> str:
    """The SHA-256 of the code that computes cached values: our files, and the releases of other packages."""
    digest = hashlib.sha256(f"{sys.byteorder} {installed_versions(_PACKAGES)}".encode())
    for folder in _FOLDERS:
        for file in sorted(Path(__file__).parent.parent.joinpath(folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _bytes(array: NDArray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))


def _opened(path: str) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The header of an entry, and the bytes after it."""
    with open(path, "rb") as file:
        start = file.read(_START)
        length = int.from_bytes(start[len(_MAGIC) : len(_MAGIC) + 8], "little")
        size = os.fstat(file.fileno()).st_size
        if not start.startswith(_MAGIC) or length > size - _START:
            raise ValueError("cut off, or another file")
        header = file.read(length)
        if hashlib.sha256(header).digest() != start[-32:]:
            raise ValueError("the checksum of its header differs")
        if size == _START + length:
            return json.loads(header), np.zeros(0, np.uint8)
        # copy on write: PyTorch has no read-only tensors
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return json.loads(header), np.frombuffer(mapped, np.uint8)[_START + length :]


def _array(content: NDArray[np.uint8], listed: Mapping[str, Any]) -> NDArray:
    kind, shape = np.dtype(listed["type"]), tuple(listed["shape"])
    size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
    if kind.hasobject or not 0 <= listed["at"] <= len(content) - size:
        raise ValueError("cut off")
    some = content[listed["at"] : listed["at"] + size]
    if zlib.crc32(some) != listed["crc"]:
        raise ValueError("a checksum differs")
    return some.view(kind).reshape(shape) if size else np.zeros(shape, kind)


def _encoded(value: Any, arrays: list[NDArray], places: dict[tuple, tuple[int, Any]]) -> Any:
    """``value`` as JSON, where a list is ["list", ...] and so on; arrays go into ``arrays``, each once."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _NUMBERS + "U":
            raise NotKept(f"an array of {value.dtype}")
        # tensors give a new array of the same memory each time
        memory = value.__array_interface__["data"][0], value.dtype.str, value.shape, value.strides
        if memory not in places:
            # keeps the value alive, so that its memory is not reused
            places[memory] = len(arrays), value
            arrays.append(np.ascontiguousarray(value))
        return ["array", places[memory][0]]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return str(value) if isinstance(value, str) else value
    if type(value) is dict:
        pairs = [[_encoded(one, arrays, places) for one in pair] for pair in value.items()]
        return ["dict", *pairs]
    if type(value) in (list, tuple):
        return [type(value).__name__, *(_encoded(one, arrays, places) for one in value)]
    raise NotKept(f"a {type(value).__name__}")


def _decoded(node: Any, arrays: list[NDArray]) -> Any:
    if not isinstance(node, list):
        return node
    kind, *rest = node
    if kind == "array":
        return arrays[rest[0]]
    if kind == "dict":
        return {_decoded(key, arrays): _decoded(value, arrays) for key, value in rest}
    parts: Iterator[Any] = (_decoded(one, arrays) for one in rest)
    return tuple(parts) if kind == "tuple" else list(parts)
