"""Checkpoint files: tensors and plain data only, written whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Optional

import torch
from torch import nn

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.loading import become_sparse, sparse_counterparts
from recbole_dsl.sparse.places import find_places
from recbole_dsl.sparse.validity import topology_problem
from recbole_dsl.sparse.weight import SparseWeight

FORMAT = "recbole_dsl"
VERSION = 1


def write_checkpoint(path: str, state: Mapping[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) to ``path``.

    The file appears under its name when it is complete; a kill before that leaves the previous file whole.
    """
    path = os.path.abspath(path)
    descriptor, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix=os.path.basename(path) + ".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def read_checkpoint(
    path: str, device: Any = "cpu", model: Optional[str] = None, option: str = "model_file"
) -> dict[str, Any]:
    """Read a file that `write_checkpoint` made, with ``torch.load(weights_only=True)``.

    Args:
        model: the name of the model it must be of, or None for any.
        option: what the user named the file by, for the error.

    Raises:
        DSLError: if the file is missing, truncated, not ours, of a later version or of another model.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise DSLError(f"{option}={path}: must be an existing file")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch raises what zip, pickle or its own reader happen to raise on such a file
        raise DSLError(f"{option}={path}: must be a whole checkpoint of recbole_dsl") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DSLError(f"{option}={path}: must be a checkpoint of recbole_dsl")
    if state["version"] > VERSION:
        raise DSLError(f"{option}={path}: has version {state['version']}, must be at most {VERSION}")
    if model is not None and state["model"].lower() != model.lower():
        raise DSLError(f"{option}={path}: is of {state['model']}, must be of {model}")
    return state


def load_weights(model: nn.Module, state_dict: Mapping[str, torch.Tensor], path: str) -> None:
    """Load ``state_dict`` into ``model``, sparse or not yet, whatever the topology.

    A model that does not fit is left as it was.

    Raises:
        DSLError: naming the first difference.
    """
    problem = _misfit(model, state_dict)
    if problem:
        raise DSLError(f"model_file={path}: does not fit the model: {problem}")
    become_sparse(model, state_dict)
    model.load_state_dict(state_dict)


def plain(value: Any) -> Any:
    """A copy of ``value`` made of tensors and plain data, for a file that needs no unpickling.

    Raises:
        TypeError: if there is anything else in it.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    # numbers of numpy and subclasses of str would be pickled by their class
    for kind, made in ((bool, bool), (Integral, int), (Real, float), (str, str)):
        if isinstance(value, kind):
            return made(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    raise TypeError(f"{type(value).__name__} is neither a tensor nor plain data")


def plain_entries(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``values`` that `plain` accepts."""
    kept = {}
    for name, value in values.items():
        try:
            kept[name] = plain(value)
        except TypeError:
            continue
    return kept


def _misfit(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> Optional[str]:
    own = dict(model.state_dict())
    sparse = {n: m for n, m in model.named_modules(remove_duplicate=False) if isinstance(m, SparseWeight)}
    places = find_places(model)
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
    for name, tensor in own.items():
        if tensor.shape != state_dict[name].shape:
            return f"{name} is {tuple(state_dict[name].shape)}, must be {tuple(tensor.shape)}"
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
