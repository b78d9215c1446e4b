"""Pretrained files that a model's constructor reads, such as the halves of a NeuMF: ours, or RecBole's."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from torch import Tensor

from recbole_dsl.checkpoint.archive import has_checksum
from recbole_dsl.checkpoint.checkpoint_file import FORMAT, read_checkpoint
from recbole_dsl.compat.pickle_protocol import as_protocol_2
from recbole_dsl.data.rows import FileRows
from recbole_dsl.errors import DSLError
from recbole_dsl.patching import Patch, changes, lock
from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.validity import parts_in, topology_problem

_TORCH_LOAD = Patch("torch", "load", "the files that a model's constructor reads run nothing, and may be sparse")
# option that names a file -> another option -> its values with which a model of RecBole reads the file
_READ_WHEN: dict[str, dict[str, tuple]] = {
    "mf_pretrain_path": {"use_pretrain": (True,)},
    "mlp_pretrain_path": {"use_pretrain": (True,)},
    "pre_model_path": {"train_stage": ("critic_pretrain", "finetune"), "train_method": ("after_pretrain",)},
    "pretrain_path": {"model": ("NAIS",)},
    "warm_up": {"phase": ("distillation", "finetuning")},
}
# datasets that have been compared with the files that their model started from
_compared: "WeakSet[Dataset]" = WeakSet()


@contextmanager
def readable_files(
    config: Config, dataset: Dataset, known: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[None]:
    """Within it, ``torch.load``, which RecBole's constructors call, runs no code from a file.

    In the state dict of a file of ours, a sparse weight also has its dense name. From a file of RecBole's, or of
    another dense model, tensors and plain data are loaded; other objects, such as RecBole's Config, are not
    created. A file whose rows are not those of ``dataset`` is refused.

    Args:
        known: path -> content, for files that are not read.

    Raises:
        DSLError: naming the option, if a file is missing, cannot be read so or has other rows.
    """

    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        option = next((name for name, value in config.final_config_dict.items() if value == file), "file")
        try:
            given = (known or {}).get(file) if isinstance(file, str) else None
            with _TORCH_LOAD.undone():
                content = _read(file, map_location, option) if given is None else dict(given)
        except DSLError:
            raise
        except FileNotFoundError as error:
            raise DSLError(f"{option}={file}: must be an existing file") from error
        except Exception as error:
            # PyTorch raises whatever zip, pickle or its own reader raise on such a file
            raise DSLError(f"{option}={file}: must be a whole checkpoint of recbole_dsl or of RecBole") from error
        if not isinstance(content, dict):
            raise DSLError(f"{option}={file}: must be a checkpoint of recbole_dsl or of RecBole")
        if given is None:
            is_ours = content.get("format") == FORMAT
            FileRows(content if is_ours else {}, option, str(file)).require(dataset)
        state, shapes = content.get("state_dict"), content.get("shapes")
        if isinstance(state, dict):
            content["state_dict"] = _DenseToo(state, shapes, f"{option}={file}")
            return content
        return _DenseToo(content, None, f"{option}={file}")

    with _TORCH_LOAD.by(load):
        yield
    _compared.add(dataset)


def pretrained_rows(config: Config, surely: bool = False) -> list[FileRows]:
    """The `FileRows` of each of our files that the options name as a start for the model.

    Args:
        surely: only files that a model of RecBole is known to read with these options.
    """
    found = []
    for option, path in config.final_config_dict.items():
        is_read = _is_read(config, option)
        if is_read is False or (surely and is_read is None) or not isinstance(path, str):
            continue
        with suppress(DSLError, OSError):
            # a file of another kind is refused when it is read
            if os.path.isfile(path) and has_checksum(path):
                found.append(FileRows(read_checkpoint(path, option=option), option, path))
    return found


def require_rows_of_pretrained(config: Config, dataset: Dataset) -> None:
    """Refuse ``dataset`` if its model started from a file with other rows; compared once for a dataset."""
    if dataset not in _compared:
        for file in pretrained_rows(config, surely=True):
            file.require(dataset)
        _compared.add(dataset)


def _is_read(config: Config, option: str) -> bool | None:
    """Whether a model of RecBole reads the file that ``option`` names; None for an option of the user's own."""
    if option not in _READ_WHEN:
        return None
    return any(config[other] in values for other, values in _READ_WHEN[option].items())


@changes("torch.serialization.safe_globals", "the names in a file of RecBole are read as what does nothing")
def _read(file: Any, map_location: Any, option: str) -> Any:
    # RecBole writes a later pickle protocol than weights_only=True reads
    source = as_protocol_2(file)
    try:
        content = torch.load(source, map_location=map_location, weights_only=True)
        is_ours = isinstance(content, dict) and content.get("format") == FORMAT and isinstance(file, str)
        return read_checkpoint(file, map_location or "cpu", option=option) if is_ours else content
    except (DSLError, FileNotFoundError):
        raise
    except Exception:
        if hasattr(source, "seek"):
            source.seek(0)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(source)
        if hasattr(source, "seek"):
            source.seek(0)
        with lock(), torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
            return torch.load(source, map_location=map_location, weights_only=True)


def _stand_in(name: str) -> type:
    """A class that stands for the one that a file names; it keeps nothing and does nothing."""

    class StandIn:
        def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
            return super().__new__(cls)

        def __init__(self, *args: Any, **kwargs: Any):
            pass

        def __setstate__(self, state: Any) -> None:
            pass

    StandIn.__name__ = StandIn.__qualname__ = name
    return StandIn


class _DenseToo(dict):
    """A state dict that also has each sparse weight as a dense tensor, under its dense name."""

    def __init__(self, state: Mapping[str, Tensor], shapes: Any, source: str):
        super().__init__(state)
        self._shapes, self._source = shapes, source

    def __missing__(self, name: str) -> Tensor:
        parts = parts_in(self, name)
        if not all(isinstance(part, Tensor) for part in parts):
            raise DSLError(f"{self._source}: does not fit the model: {name} is missing")
        shape = self._shapes.get(name) if isinstance(self._shapes, dict) else None
        if not isinstance(shape, list) or len(shape) < 2 or not all(type(n) is int and n > 0 for n in shape):
            raise DSLError(f"{self._source}: does not say the shape of {name}")
        n_rows, n_columns = shape[0], math.prod(shape[1:])
        problem = topology_problem(n_rows, n_columns, None, *parts)
        if problem:
            raise DSLError(f"{self._source}: {name}: {problem}")
        values, columns, offsets = parts
        return CompressedRows(n_columns, columns, offsets, values).dense().view(shape)
