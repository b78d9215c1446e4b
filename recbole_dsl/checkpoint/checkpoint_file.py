"""Checkpoint files: tensors and plain data only, written whole or not at all, and checked before use."""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dsl.checkpoint.rows import are_rows
from recbole_dsl.checkpoint.run_record import is_record
from recbole_dsl.checkpoint.trained_on import is_trained_on
from recbole_dsl.checkpoint.whole_files import damage, write_whole
from recbole_dsl.errors import DSLError
from recbole_dsl.files import output_file
from recbole_dsl.sparse.loading import become_sparse, sparse_counterparts
from recbole_dsl.sparse.parameter_sites import find_sites
from recbole_dsl.sparse.validity import topology_problem
from recbole_dsl.sparse.weight import SparseWeight

FORMAT = "recbole_dsl"
VERSION = 4
# what the pickle in a checkpoint begins with, and the part of the file in which it begins
_SAYS_SO, _BEGIN = rb"format.{1,8}recbole_dslq", 4096
# for who looks at the file with PyTorch alone
_HOW_TO_READ = "recbole_dsl.load_data_and_model(file) gives back the model"


def write_checkpoint(path: str, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to ``path``.

    The file appears under its name when it is complete; a kill before that leaves the previous file whole.

    Raises:
        DSLError: if it cannot be written, or another file than a checkpoint is there.
    """
    refuse_other_file(path)
    content = {"format": FORMAT, "version": VERSION, "how_to_read": _HOW_TO_READ, **state}
    write_whole(path, lambda file: torch.save(content, file))


def refuse_other_file(path: str) -> None:
    """Raise a DSLError if at ``path`` is anything but a checkpoint, which one may replace."""
    output_file(path, "checkpoint_dir", "a checkpoint of recbole_dsl", is_checkpoint)


def is_checkpoint(path: str) -> bool:
    """Whether the file at ``path`` says that it is a checkpoint, whole or damaged, of whatever version."""
    with open(path, "rb") as file:
        begin = file.read(_BEGIN)
    return begin.startswith(b"PK") and re.search(_SAYS_SO, begin, re.DOTALL) is not None


def read_checkpoint(
    path: str, device: Any = "cpu", model: str | None = None, option: str = "model_file"
) -> dict[str, Any]:
    """Read a file that `write_checkpoint` made, with ``torch.load(weights_only=True)``.

    Its checksum is compared first, and then the kind of each of its parts; whether these fit a model and its
    trainer is for `weights_problem` and ``state_checks``.

    Args:
        model: the name of the model it must be of, or None for any.
        option: what the user named the file by, for the error.

    Raises:
        DSLError: if the file is missing, damaged, not ours, of a later version or of another model.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise DSLError(f"{option}={path}: must be an existing file")
    try:
        problem = damage(path)
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
        raise DSLError(f"{option}={path}: is of {state['model']}, must be of {model}")
    return state


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], path: str) -> None:
    """Load ``state_dict`` into ``model``, sparse or not yet, whatever the topology.

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
    """The first thing for which ``state_dict`` cannot be that of ``model``, sparse or not yet; None if it can."""
    own = dict(model.state_dict())
    sparse = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, SparseWeight)}
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
    """What keeps ``state`` from being read, or None; parts that files of earlier versions lack are filled in."""
    version = state.get("version")
    if not _is_int(version) or version < 1:
        return f"has version {version!r:.40}, must be a number from 1 to {VERSION}"
    if version > VERSION:
        return f"has version {version}, must be at most {VERSION}: update recbole_dsl"
    for name, make in _ADDED.items():
        if version < VERSION:
            state.setdefault(name, make())
    try:
        problem = _not_plain(state, set())
    except RecursionError:
        problem = "is nested too deep"
    if problem:
        return problem
    for name, (is_right, words) in _PARTS.items():
        if name not in state:
            return f"has no {name}"
        if not is_right(state[name]):
            return f"{name} must be {words}"
    return None


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


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 200 and value.isprintable()


def _at_least(least: int) -> Callable[[Any], bool]:
    return lambda value: _is_int(value) and least <= value < 2**62


def _named(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(isinstance(k, str) and is_right(v) for k, v in value.items())
    )


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run": (_is_text, "text"),
    "model": (lambda value: _is_text(value) and value.isidentifier(), "the name of a model"),
    "dataset": (lambda value: _is_text(value) and os.path.basename(value) == value, "the name of a dataset"),
    "config": (_named(lambda value: True), "options by their names"),
    "dsl": (_named(lambda value: True), "options by their names"),
    "epoch": (_at_least(-1), "an integer >= -1"),
    "cur_step": (_at_least(0), "an integer >= 0"),
    "best_valid_score": (_is_number, "a number"),
    "best_valid_result": (lambda value: value is None or _named(_is_number)(value), "numbers by their names"),
    "state_dict": (_named(lambda value: isinstance(value, Tensor)), "tensors by their names"),
    "other_parameter": (_is_dict, "values by their names"),
    "attributes": (_named(_is_dict), "values by module and name"),
    "learners": (_list_of(_is_text), "the names of optimizers"),
    "optimizers": (_list_of(_is_dict), "the states of optimizers"),
    "schedulers": (_named(_is_dict), "the states of schedulers by their names"),
    "topology": (_is_dict, "the state of a topology"),
    "random_state": (_is_dict, "random states by their names"),
    "record": (is_record, "losses, results and times of as many epochs"),
    "rows": (are_rows, "the tokens of fields"),
    "trained_on": (is_trained_on, "a digest and a sample of interactions"),
}
# what earlier versions did not have
_ADDED: dict[str, Callable[[], Any]] = {
    "run": lambda: "unknown",
    "attributes": dict,
    "schedulers": dict,
    "record": dict,
    "rows": dict,
    "trained_on": dict,
}
