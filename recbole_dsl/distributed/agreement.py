"""What the processes that train one model agree on."""

import io
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from recbole_dsl.interrupts import held_interrupts
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.topology.processes import take_from_first

# RecBole's Config, or what gives options by name as it does
Options = Mapping[str, Any]
_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm


def is_parallel(config: Options) -> bool:
    """Whether this is one of several processes that train one model."""
    return not config["single_spec"] and dist.is_initialized()


def rank_of(config: Options) -> int:
    """The rank of this process among those of all machines; 0 if it is alone."""
    return dist.get_rank() if is_parallel(config) else 0


def is_first(config: Options) -> bool:
    """Whether this process logs and writes the files of the run."""
    return rank_of(config) == 0


def same_for_all(config: Options, value: Any) -> Any:
    """What the first process gave as ``value``, which is plain data."""
    values = [value]
    if is_parallel(config):
        dist.broadcast_object_list(values, 0)
    return values[0]


def agree_on_weights(config: Options, model: nn.Module) -> None:
    """Give every process the dense weights of the first: an initial topology may depend on them.

    Tables that are not made yet are drawn from the same seed.
    """
    if not is_parallel(config) or sparse_weights(model):
        return
    for tensor in model.state_dict().values():
        if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided and tensor.numel():
            take_from_first(tensor)


def agree_on_start(config: Options, model: nn.Module) -> None:
    """Give every process the topology and the values that the first has found for its sparse weights.

    Machines of different kinds factorise the same data to different last digits.
    """
    if not is_parallel(config):
        return
    for weight in sparse_weights(model).values():
        state = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
        for tensor in state.values():
            take_from_first(tensor)
        if not is_first(config):
            weight.load_state_dict(state)


def agree_on_values(config: Options, optimizers: Iterable[Optimizer]) -> None:
    """Give every process the parameters and moments of the first: machines of other kinds round otherwise."""
    if not is_parallel(config):
        return
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            moments = sorted(optimizer.state.get(parameter, {}).items())
            for tensor in (parameter, *(t for _, t in moments if isinstance(t, torch.Tensor))):
                take_from_first(tensor)


def agree_on_norms(config: Options, model: nn.Module) -> None:
    """Average the running statistics of batch norms: on a CPU each process normalises its own part of a batch."""
    if not is_parallel(config):
        return
    for module in model.modules():
        if isinstance(module, _NORMS) and module.running_mean is not None:
            for tensor in (module.running_mean, module.running_var):
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()


def begin_epoch(config: Options, epoch: int) -> None:
    """Seed each process for ``epoch`` with numbers of its own, the same ones when a run is resumed there."""
    if not is_parallel(config):
        return
    seed = np.random.SeedSequence([config["seed"], epoch, rank_of(config)]).generate_state(1)[0].item()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def random_numbers_of_first(config: Options) -> Iterator[None]:
    """Let every process draw within what the first draws, and go on with its own numbers afterwards."""
    if not is_parallel(config):
        yield
        return
    # negative items are drawn on the CPU
    own = random_state(with_gpus=False)
    restore_random_state(same_for_all(config, own))
    try:
        yield
    finally:
        if not is_first(config):
            restore_random_state(own)


def sent_checkpoint(config: Options, checkpoint: dict[str, Any] | None) -> dict[str, Any]:
    """The parts of ``checkpoint``, as the first process has read it, that a model is restored from.

    The file may be on the machine of the first process only.
    """
    if not is_parallel(config):
        return checkpoint
    file = io.BytesIO()
    if checkpoint is not None:
        sent_names = ("state_dict", "other_parameter", "rows", "trained_on")
        with held_interrupts():
            torch.save({name: checkpoint[name] for name in sent_names}, file)
    sent = same_for_all(config, file.getvalue())
    if is_first(config):
        return checkpoint
    return torch.load(io.BytesIO(sent), map_location=config["device"], weights_only=True)
