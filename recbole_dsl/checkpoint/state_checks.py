"""Whether what a checkpoint says of optimizers, topology and random states fits a trainer."""

import random
from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from recbole_dsl.errors import described
from recbole_dsl.topology.engine import DynamicTopology

# what the optimizers of PyTorch count, or take the root of
_NEVER_NEGATIVE = {"step", "exp_avg_sq", "max_exp_avg_sq", "sum", "square_avg", "acc_delta"}


def optimizers_problem(
    optimizers: Sequence[Optimizer], learners: Sequence[str], states: Sequence[Mapping], sizes: Mapping[int, int]
) -> str | None:
    """What keeps ``states`` from being loaded into ``optimizers``, or None.

    Args:
        learners: the class names of the optimizers that the states are of.
        sizes: the number of alive weights that each sparse weight's values, by their ``id``, will have.
    """
    if len(states) != len(learners) or len(states) != len(optimizers):
        return f"optimizers are {len(states)}, must be {len(optimizers)}"
    for optimizer, state in zip(optimizers, states):
        problem = _optimizer_problem(optimizer, state, sizes)
        if problem:
            return f"optimizer {type(optimizer).__name__}: {problem}"
    return None


def topology_state_problem(topology: DynamicTopology, state: Mapping[str, Any]) -> str | None:
    """What keeps ``state`` from being loaded into ``topology``, or None."""
    for name in ("step", "generator", "explored", "updates"):
        if name not in state:
            return f"topology has no {name}"
    if not _is_count(state["step"]):
        return "topology: step must be an integer >= 0"
    if not _is_generator_state(state["generator"]):
        return "topology: generator must be the state of a generator"
    updates = state["updates"]
    if not isinstance(updates, list) or not all(map(is_update, updates)):
        return "topology: updates must be records of updates"
    problem = topology.record_problem(state["explored"], state.get("explored_count", {}), bool(updates))
    if problem:
        return problem
    return topology.window_problem(state.get("window", {}))


def random_state_problem(state: Mapping[str, Any]) -> str | None:
    """What keeps ``state`` from being restored, or None. All of it is tried on generators of no other use."""
    try:
        version, numbers, gauss = state["python"]
        random.Random().setstate((version, tuple(numbers), gauss))
        kind, keys, place, *rest = state["numpy"]
        if not (_is_like(keys, (624,), torch.int64) and 0 <= place <= 624):
            return "random_state: numpy must be the state of a generator"
        np.random.RandomState().set_state((kind, keys.numpy(force=True).astype(np.uint32), place, *rest))
    except (KeyError, TypeError, ValueError, OverflowError):
        return "random_state: python and numpy must be states of generators"
    for name in ("cuda", "loaders"):
        if not isinstance(state.get(name), list):
            return f"random_state: {name} must be states of generators"
    if not all(_is_generator_state(one) for one in (state.get("torch"), *state["loaders"])):
        return "random_state: torch and loaders must be states of generators"
    if not all(isinstance(one, Tensor) and one.dtype == torch.uint8 and one.dim() == 1 for one in state["cuda"]):
        return "random_state: cuda must be states of generators"
    return None


def loadable(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """``state``, in which `optimizers_problem` found none, with the groups' numbers only.

    What else a group says, in which form the steps are made, say, is as in ``optimizer``.
    """
    own = optimizer.state_dict()
    groups = []
    for given, mine in zip(state["param_groups"], own["param_groups"]):
        settings = {name: value for name, value in given.items() if _is_setting(name, value, mine)}
        groups.append({**mine, **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}})
    return {"state": state["state"], "param_groups": groups}


def is_same_kind(given: Any, own: Any) -> bool:
    """Whether ``given`` may stand where ``own`` does: a finite number, a tensor of its shape, and so on."""
    if isinstance(own, bool) or own is None:
        return given is None or isinstance(given, bool)
    if isinstance(own, (int, float)):
        return isinstance(given, (int, float)) and not isinstance(given, bool) and np.isfinite(given)
    if isinstance(own, (tuple, list)):
        return isinstance(given, (tuple, list)) and len(given) == len(own) and all(map(is_same_kind, given, own))
    if isinstance(own, Tensor):
        return _is_like(given, own.shape, own.dtype) and bool(given.isfinite().all())
    return type(given) is type(own)


def _optimizer_problem(optimizer: Optimizer, state: Mapping, sizes: Mapping[int, int]) -> str | None:
    own = optimizer.state_dict()
    groups, entries = state.get("param_groups"), state.get("state")
    if not isinstance(groups, list) or not isinstance(entries, dict):
        return "its state must have param_groups and state"
    if len(groups) != len(own["param_groups"]):
        return f"it has {len(groups)} groups, must have {len(own['param_groups'])}"
    for given, mine in zip(groups, own["param_groups"]):
        problem = _group_problem(given, mine)
        if problem:
            return problem
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kinds = [_kinds_of_state(optimizer, group) for group in optimizer.param_groups for _ in group["params"]]
    for index, values in entries.items():
        if not _is_count(index) or index >= len(parameters) or not isinstance(values, dict):
            return f"it has no parameter {index!r:.20}"
        parameter = parameters[index]
        shape = (sizes[id(parameter)],) if id(parameter) in sizes else tuple(parameter.shape)
        problem = _entry_problem(values, kinds[index], shape)
        if problem:
            return f"parameter {index}: {problem}"
    return None


def _group_problem(given: Any, own: Mapping[str, Any]) -> str | None:
    if not isinstance(given, dict) or given.get("params") != own["params"]:
        return "its groups are of other parameters"
    for name, value in own.items():
        if name == "params":
            continue
        # releases of PyTorch differ in them
        if name in given and not is_same_kind(given[name], value):
            return f"{name} is {given[name]!r:.40}, must be like {value!r:.40}"
    return None


def _is_setting(name: str, value: Any, own: Mapping[str, Any]) -> bool:
    if name == "initial_lr":
        # a scheduler notes it
        return is_same_kind(value, 0.0)
    return (
        name != "params"
        and name in own
        and isinstance(own[name], (float, tuple))
        and is_same_kind(value, own[name])
    )


def _kinds_of_state(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, str] | None:
    """What an optimizer like this one keeps of a parameter: name -> "like", "one", "number" or "none".

    None where that is not to be found out.
    """
    device = group["params"][0].device if group["params"] else "cpu"
    tiny = torch.nn.Parameter(torch.ones(3, device=device))
    tiny.grad = torch.ones_like(tiny)
    try:
        probe = type(optimizer)([{**group, "params": [tiny]}])
        probe.step()
    except Exception as error:
        # an optimizer of the user's own has a constructor and needs of its own
        name = type(optimizer).__name__
        getLogger().warning(f"the state of {name} is not checked: {described(error)}")
        return None
    kinds = {}
    for name, value in probe.state[tiny].items():
        if isinstance(value, Tensor):
            kinds[name] = "like" if value.shape == tiny.shape else "one"
        else:
            kinds[name] = "number" if isinstance(value, (int, float)) else "none"
    return kinds


def _entry_problem(values: Mapping, kinds: Mapping[str, str] | None, shape: tuple) -> str | None:
    if kinds is not None and set(values) != set(kinds):
        return f"its state is {', '.join(map(str, values)):.80}, must be {', '.join(kinds)}"
    for name, value in values.items():
        kind = kinds[name] if kinds is not None else None
        if isinstance(value, Tensor):
            problem = _state_tensor_problem(name, value, kind, shape)
            if problem:
                return problem
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if kind not in ("number", None) or not np.isfinite(value) or (name == "step" and value < 0):
                return f"{name} is {value}"
        elif value is not None or kind not in ("none", None):
            return f"{name} is {value!r:.40}"
    return None


def _state_tensor_problem(name: str, value: Tensor, kind: str | None, shape: tuple) -> str | None:
    allowed = {"like": [shape], "one": [()], None: [(), shape]}.get(kind, [])
    if tuple(value.shape) not in allowed or not value.is_floating_point() or not value.is_contiguous():
        return f"{name} is {tuple(value.shape)} of {value.dtype}, must be floating-point of {allowed}"
    if not value.isfinite().all():
        return f"{name} is not finite"
    if name in _NEVER_NEGATIVE and (value < 0).any():
        return f"{name} is negative"
    return None


def is_update(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"step", "ratio", "exchanged", "exploration_rate", "density"}:
        return False
    density = value["density"]
    return (
        _is_count(value["step"])
        and _is_count(value["exchanged"])
        and all(_is_share(value[name]) for name in ("ratio", "exploration_rate"))
        and isinstance(density, dict)
        and all(isinstance(name, str) and _is_share(one) for name, one in density.items())
    )


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _is_like(value: Any, shape: Iterable[int], dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == tuple(shape) and value.dtype == dtype


def _is_generator_state(value: Any) -> bool:
    generator = torch.Generator()
    if not _is_like(value, generator.get_state().shape, torch.uint8):
        return False
    try:
        generator.set_state(value.cpu())
    except RuntimeError:
        return False
    return True
