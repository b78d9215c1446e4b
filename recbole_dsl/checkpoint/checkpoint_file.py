"""Checkpoint files: tensors and plain data only, written whole or not at all, and checked before use."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dsl.checkpoint import run_state
from recbole_dsl.checkpoint.archive import damage, write_archive
from recbole_dsl.checkpoint.forms import is_count
from recbole_dsl.errors import DSLError
from recbole_dsl.files import output_file
from recbole_dsl.serving.artifact import is_artifact
from recbole_dsl.sparse.loading import become_sparse, sparse_counterparts
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.parameter_sites import find_sites
from recbole_dsl.sparse.validity import topology_problem

FORMAT = "recbole_dsl"
VERSION = 4
# what the pickle in a checkpoint begins with, and in how many bytes of the file it does
_SIGNATURE, _SEARCHED = rb"format.{1,8}recbole_dslq", 4096
# for readers who open the file with PyTorch alone
_HOW_TO_READ = "recbole_dsl.load_data_and_model(file) gives back the model"


def write_checkpoint(path: str, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to ``path``.

    The file appears under its name when it is complete; a kill before that leaves the previous file whole.

    Raises:
        DSLError: if it cannot be written, or another file than a checkpoint is there.
    """
    refuse_other_file(path)
    content = {"format": FORMAT, "version": VERSION, "how_to_read": _HOW_TO_READ, **state}
    write_archive(path, lambda file: torch.save(content, file))


def refuse_other_file(path: str) -> None:
    """Raise a DSLError if ``path`` is a file of another kind; a checkpoint may be replaced."""
    output_file(path, "checkpoint_dir", "a checkpoint of recbole_dsl", is_checkpoint)


def is_checkpoint(path: str) -> bool:
    """Whether the file at ``path`` says that it is a checkpoint, whole or damaged, of whatever version."""
    with open(path, "rb") as file:
        begin = file.read(_SEARCHED)
    return begin.startswith(b"PK") and re.search(_SIGNATURE, begin, re.DOTALL) is not None


def read_checkpoint(
    path: str, device: Any = "cpu", model: str | None = None, option: str = "model_file"
) -> dict[str, Any]:
    """Read a file that `write_checkpoint` made, with ``torch.load(weights_only=True)``.

    The checksum is compared first, then the form of each part. Whether these fit a model and its trainer is for
    `weights_problem` and ``state_checks`` to say.

    Args:
        model: the name of the model that the file must be of, or None for any.
        option: the one that names the file, for the error.

    Raises:
        DSLError: if the file is missing, damaged, not ours, of a later version or of another model.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise DSLError(f"{option}={path}: must be an existing file")
    try:
        problem = "it is an artifact, which is made of one" if is_artifact(path) else damage(path)
        state = None if problem else torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch raises what zip, pickle or its own reader happen to raise on such a file
        raise DSLError(f"{option}={path}: must be a whole checkpoint of recbole_dsl") from error
    if problem:
        raise DSLError(f"{option}={path}: must be a whole checkpoint of recbole_dsl, but {problem}")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DSLError(f"{option}={path}: must be a checkpoint of recbole_dsl")
    problem = _unreadable(state)
    if problem:
        raise DSLError(f"{option}={path}: {problem}")
    if model is not None and state["model"].lower() != model.lower():
        raise DSLError(f"{option}={path}: holds {state['model']}, must hold {model}")
    return state


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], path: str) -> None:
    """Load ``state_dict`` and its topology into ``model``, sparse or still dense.

    A model that does not fit is left as it was.

    Raises:
        DSLError: naming the first difference.
    """
    problem = weights_problem(model, state_dict)
    if problem:
        raise DSLError(f"model_file={path}: does not fit the model: {problem}")
    become_sparse(model, state_dict)
    model.load_state_dict(state_dict)


def weights_problem(model: nn.Module, state_dict: Mapping[str, Tensor]) -> str | None:
    """The first reason why ``model``, sparse or still dense, cannot load ``state_dict``, or None."""
    own = dict(model.state_dict())
    sparse = sparse_weights(model, all_names=True)
    places = find_sites(model)
    for name, weight in sparse_counterparts(places, state_dict).items():
        for alias in places.aliases[name]:
            del own[alias]
            sparse[alias] = weight
    own.update({f"{name}.{part}": tensor for name, w in sparse.items() for part, tensor in w.state_dict().items()})
    for name in own:
        if name not in state_dict:
            return f"{name} is missing"
    for name in state_dict:
        if name not in own:
            return f"{name} is unknown"
    for name, weight in sparse.items():
        parts = {part: f"{name}.{part}" for part in weight.state_dict()}
        tensors = {part: state_dict[full] for part, full in parts.items()}
        problem = topology_problem(weight.n_rows, weight.n_columns, weight.padding_row, **tensors)
        if problem:
            return f"{name}: {problem}"
        for full in parts.values():
            del own[full]
    trained = {alias for names in places.aliases.values() for alias in names}
    for name, tensor in own.items():
        problem = _unlike(tensor, state_dict[name], name in trained)
        if problem:
            return f"{name} {problem}"
    return None


def _unlike(own: Any, other: Tensor, is_parameter: bool) -> str | None:
    if not isinstance(own, Tensor):
        return None
    if own.shape != other.shape:
        return f"is {tuple(other.shape)}, must be {tuple(own.shape)}"
    if own.dtype != other.dtype and not (own.is_floating_point() and other.is_floating_point()):
        return f"is {other.dtype}, must be {own.dtype}"
    if is_parameter and not other.isfinite().all():
        return "is not finite"
    return None


def _unreadable(state: dict[str, Any]) -> str | None:
    """Why ``state`` cannot be used, or None; parts that files of earlier versions lack are filled in."""
    version = state.get("version")
    if not is_count(version) or version < 1:
        return f"has version {version!r:.40}, must be a number from 1 to {VERSION}"
    if version > VERSION:
        return f"has version {version}, must be at most {VERSION}: update recbole_dsl"
    run_state.fill_in(state, is_earlier=version < VERSION)
    try:
        return _not_plain(state, set()) or run_state.problem(state)
    except RecursionError:
        return "is nested too deep"


def _not_plain(value: Any, seen: set[int]) -> str | None:
    if value is None or isinstance(value, (bool, int, float, str)):
        return None
    if isinstance(value, Tensor):
        is_usual = (
            type(value) in (Tensor, nn.Parameter) and value.layout is torch.strided and not value.is_quantized
        )
        if is_usual and value.device.type != "meta":
            return None
        return f"holds a tensor that is not a plain one: {type(value).__name__}, {value.layout}"
    if id(value) in seen:
        return None
    seen.add(id(value))
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        return f"holds a {type(value).__name__}, which is neither a tensor nor plain data"
    return next((problem for problem in (_not_plain(part, seen) for part in parts) if problem), None)
