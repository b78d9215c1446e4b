"""Whether the state in a checkpoint fits a trainer: content behind a right checksum is not believed either."""

import random
from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recbole_dsl.checkpoint.attributes import AttributeWatch
from recbole_dsl.checkpoint.checkpoint_file import weights_problem
from recbole_dsl.checkpoint.forms import (
    is_count,
    is_int,
    is_number,
    is_share,
    kind,
    list_of,
    named,
    record,
    vector,
)
from recbole_dsl.checkpoint.run_state import RunState
from recbole_dsl.errors import described
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.topology.engine import DynamicTopology

# what the optimizers of PyTorch count, or take the root of
_NEVER_NEGATIVE = {"step", "exp_avg_sq", "max_exp_avg_sq", "sum", "square_avg", "acc_delta"}
# a `TopologyUpdate` as a dictionary
is_update = record(
    step=is_count, ratio=is_share, exchanged=is_count, exploration_rate=is_share, density=named(is_share)
)


def state_problem(
    state: RunState,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    schedulers: Mapping[str, Any],
    topology: DynamicTopology,
    attributes: AttributeWatch,
) -> str | None:
    """The first thing for which ``state`` cannot be restored into these, or None; nothing is changed."""
    return (
        weights_problem(model, state.state_dict)
        or attributes.problem(state.attributes)
        or _optimizers_problem(optimizers, state, model)
        or _schedulers_problem(schedulers, state.schedulers)
        or _topology_problem(topology, state.topology)
        or _random_state_problem(state.random_state)
    )


def loadable(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """``state``, in which `state_problem` found none, with only the numbers that its groups set.

    Other settings, such as the kernels that make a step, stay those of ``optimizer``.
    """
    groups = []
    for given, own in zip(state["param_groups"], optimizer.state_dict()["param_groups"]):
        # a scheduler notes initial_lr
        own_or_noted = {"initial_lr": 0.0, **own}
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
            if isinstance(own_or_noted.get(name), (float, tuple)) and _is_like(value, own_or_noted[name])
        }
        groups.append({**own, **settings})
    return {"state": state["state"], "param_groups": groups}


def _optimizers_problem(optimizers: Sequence[Optimizer], state: RunState, model: nn.Module) -> str | None:
    states = state.optimizers
    if not len(states) == len(state.learners) == len(optimizers):
        return f"optimizers are {len(states)}, must be {len(optimizers)}"
    # a sparse weight may have another number of alive entries in the file
    shapes = {
        id(weight.values): state.state_dict[f"{name}.values"].shape
        for name, weight in sparse_weights(model).items()
    }
    for optimizer, one in zip(optimizers, states):
        problem = _optimizer_problem(optimizer, one, shapes)
        if problem:
            return f"optimizer {type(optimizer).__name__}: {problem}"
    return None


def _optimizer_problem(optimizer: Optimizer, state: Mapping, shapes: Mapping[int, torch.Size]) -> str | None:
    own = optimizer.state_dict()["param_groups"]
    groups, entries = state.get("param_groups"), state.get("state")
    if not list_of(kind(dict))(groups) or not isinstance(entries, dict):
        return "its state must have param_groups and state"
    if [group.get("params") for group in groups] != [group["params"] for group in own]:
        return "its groups hold other parameters"
    for given, mine in zip(groups, own):
        # releases of PyTorch differ in what a group has
        for name in given.keys() & mine.keys() - {"params"}:
            if not _is_like(given[name], mine[name]):
                return f"{name} is not of the kind of {mine[name]!r:.40}"
    parameters = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    usual = {id(group): _usual_state(optimizer, group) for group in optimizer.param_groups}
    for index, values in entries.items():
        if not is_int(index) or not 0 <= index < len(parameters) or not isinstance(values, dict):
            return f"it has no parameter {index!r:.20}"
        parameter, group = parameters[index]
        shape = shapes.get(id(parameter), parameter.shape)
        problem = _entry_problem(values, usual[id(group)], shape)
        if problem:
            return f"parameter {index}: {problem}"
    return None


def _usual_state(optimizer: Optimizer, group: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an optimizer like this one keeps of a parameter of three numbers, or None if it cannot be tried."""
    device = group["params"][0].device if group["params"] else "cpu"
    tiny = nn.Parameter(torch.ones(3, device=device))
    tiny.grad = torch.ones_like(tiny)
    try:
        probe = type(optimizer)([{**group, "params": [tiny]}])
        probe.step()
    except Exception as error:
        # an optimizer of the user's own has a constructor and needs of its own
        getLogger().warning(f"the state of {type(optimizer).__name__} is not checked: {described(error)}")
        return None
    return dict(probe.state[tiny])


def _entry_problem(values: Mapping, usual: Mapping[str, Any] | None, shape: torch.Size) -> str | None:
    if usual is None:
        # no more is known than the shapes that a state may have
        usual = {
            name: torch.ones(3 if value.dim() else ())
            if isinstance(value, Tensor)
            else 0.0
            if is_number(value)
            else None
            for name, value in values.items()
        }
    if values.keys() != usual.keys():
        return f"its state is {', '.join(map(str, values)):.80}, must be {', '.join(usual)}"
    for name, own in usual.items():
        value = values[name]
        if isinstance(own, Tensor) and own.dim():
            own = torch.empty(shape, dtype=own.dtype, device="meta")
        if not _is_like(value, own):
            what = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"{value!r:.40}"
            return (
                f"{name} is {what}, must be finite and like {tuple(own.shape) if isinstance(own, Tensor) else own}"
            )
        if name in _NEVER_NEGATIVE and (torch.as_tensor(value) < 0).any():
            return f"{name} is negative"
    return None


def _is_like(given: Any, own: Any) -> bool:
    """Whether ``given`` may stand where ``own`` does: a finite number, a tensor of its shape, and so on."""
    if isinstance(own, bool) or own is None:
        return given is None or isinstance(given, bool)
    if isinstance(own, (int, float)):
        return is_number(given) and bool(np.isfinite(given))
    if isinstance(own, (tuple, list)):
        return isinstance(given, (tuple, list)) and len(given) == len(own) and all(map(_is_like, given, own))
    if isinstance(own, Tensor):
        return (
            isinstance(given, Tensor)
            and given.shape == own.shape
            and given.is_floating_point() == own.is_floating_point()
            and given.is_contiguous()
            and bool(given.isfinite().all())
        )
    return type(given) is type(own)


def _schedulers_problem(schedulers: Mapping[str, Any], saved: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name, state in saved.items():
        if name not in schedulers:
            return f"scheduler {name!r:.80} is not one of the trainer"
        own = schedulers[name].state_dict()
        for key, value in state.items():
            # the best metric so far may be infinite
            is_best = isinstance(value, float) and isinstance(own.get(key), float) and is_number(value)
            if not is_best and (key not in own or not _is_like(value, own[key])):
                return f"scheduler {name}: {key!r:.80} is {value!r:.40}"
    return None


def _topology_problem(topology: DynamicTopology, state: Mapping[str, Any]) -> str | None:
    for name in ("step", "generator", "explored", "updates"):
        if name not in state:
            return f"topology has no {name}"
    if not is_count(state["step"]):
        return "topology: step must be an integer >= 0"
    if not _is_generator_state(state["generator"]):
        return "topology: generator must be the state of a generator"
    if not list_of(is_update)(state["updates"]):
        return "topology: updates must be records of updates"
    return topology.record_problem(
        state["explored"], state.get("explored_count", {}), bool(state["updates"])
    ) or topology.window_problem(state.get("window", {}))


def _random_state_problem(state: Mapping[str, Any]) -> str | None:
    """All of ``state`` is tried on generators of no other use."""
    try:
        version, numbers, gauss = state["python"]
        random.Random().setstate((version, tuple(numbers), gauss))
        kind, keys, place, *rest = state["numpy"]
        if not (vector(torch.int64)(keys) and len(keys) == 624 and 0 <= place <= 624):
            return "random_state: numpy must be the state of a generator"
        np.random.RandomState().set_state((kind, keys.numpy(force=True).astype(np.uint32), place, *rest))
    except (KeyError, TypeError, ValueError, OverflowError):
        return "random_state: python and numpy must be states of generators"
    if not list_of(_is_generator_state)(state.get("loaders")) or not _is_generator_state(state.get("torch")):
        return "random_state: torch and loaders must be states of generators"
    if not list_of(vector(torch.uint8))(state.get("cuda")):
        return "random_state: cuda must be states of generators"
    return None


def _is_generator_state(value: Any) -> bool:
    generator = torch.Generator()
    if not vector(torch.uint8)(value) or len(value) != len(generator.get_state()):
        return False
    try:
        generator.set_state(value.cpu())
    except RuntimeError:
        return False
    return True
