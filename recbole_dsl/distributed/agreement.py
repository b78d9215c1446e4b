"""What several processes that train one model agree on."""

import io
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.topology.processes import take_from_first

_NORMS = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm


def is_distributed(config: Config) -> bool:
    """Whether this is one of several processes."""
    return not config["single_spec"] and dist.is_initialized()


def rank_of(config: Config) -> int:
    """The number of this process among all, on every machine; 0 if it is alone."""
    return dist.get_rank() if is_distributed(config) else 0


def is_first(config: Config) -> bool:
    """Whether this process logs and writes the files of the run."""
    return rank_of(config) == 0


def same_for_all(config: Config, value: Any) -> Any:
    """What the first process gave as ``value``, plain data."""
    if not is_distributed(config):
        return value
    values = [value]
    dist.broadcast_object_list(values, 0)
    return values[0]


def agree_on_weights(config: Config, model: AbstractRecommender) -> None:
    """Start every process from the same dense weights: an initial topology may depend on them.

    Only those that differ are sent. Tables that are not made yet are drawn from the same seed.
    """
    if not is_distributed(config) or sparse_weights(model):
        return
    tensors = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
    }
    sums = torch.stack([_checksum(tensor) for tensor in tensors.values()]) if tensors else torch.zeros(0)
    lowest, highest = sums.clone(), sums.clone()
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    for tensor, equal in zip(tensors.values(), (lowest == highest).tolist()):
        if not equal:
            dist.broadcast(tensor, 0)


def agree_on_start(config: Config, model: AbstractRecommender) -> None:
    """Give every process the topology and the values that the first has found for its sparse weights.

    Machines of different kinds factorise the same data to different last digits.
    """
    if not is_distributed(config):
        return
    for weight in sparse_weights(model).values():
        state = {name: tensor.clone() for name, tensor in weight.state_dict().items()}
        for tensor in state.values():
            take_from_first(tensor)
        if not is_first(config):
            weight.load_state_dict(state)


def agree_on_values(config: Config, optimizers: Iterable[Optimizer]) -> None:
    """Give every process the parameters and moments of the first: machines of other kinds round otherwise."""
    if not is_distributed(config):
        return
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            moments = sorted(optimizer.state.get(parameter, {}).items())
            for tensor in (parameter, *(t for _, t in moments if isinstance(t, torch.Tensor))):
                take_from_first(tensor)


def data_parallel(config: Config, model: AbstractRecommender) -> DistributedDataParallel:
    """What adds up the gradients of ``model``: for sparse weights those of the alive entries, and nothing else.

    Topologies are not sent, as every process makes the same; the models' own buffers are, which batch norms have.
    """
    is_cpu = config["device"].type == "cpu"
    ids = None if is_cpu else [config["local_rank"]]
    return DistributedDataParallel(model, device_ids=ids)


def synchronous_norms(config: Config, model: AbstractRecommender) -> AbstractRecommender:
    """``model`` with batch norms over the whole batch, which there are on GPUs only."""
    return model if config["device"].type == "cpu" else nn.SyncBatchNorm.convert_sync_batchnorm(model)


def agree_on_norms(config: Config, model: AbstractRecommender) -> None:
    """Average what the batch norms of all processes have seen: on a CPU each normalises its own part."""
    if not is_distributed(config):
        return
    for module in model.modules():
        if isinstance(module, _NORMS) and module.running_mean is not None:
            for tensor in (module.running_mean, module.running_var):
                dist.all_reduce(tensor)
                tensor /= dist.get_world_size()


def begin_epoch(config: Config, epoch: int) -> None:
    """Give each process its own random numbers for ``epoch``, so that one that goes on draws them again."""
    if not is_distributed(config):
        return
    seed = np.random.SeedSequence([config["seed"], epoch, rank_of(config)]).generate_state(1)[0].item()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def random_numbers_of_first(config: Config) -> Iterator[None]:
    """Let every process draw within what the first draws, and go on with its own numbers afterwards."""
    if not is_distributed(config):
        yield
        return
    own = _generators()
    _set_generators(same_for_all(config, own))
    try:
        yield
    finally:
        if not is_first(config):
            _set_generators(own)


def sent_checkpoint(config: Config, checkpoint: dict[str, Any] | None) -> dict[str, Any]:
    """The parts of ``checkpoint``, as the first process has read it, that a model is restored from.

    The file may be on the machine of the first process only.
    """
    if not is_distributed(config):
        return checkpoint
    names = ("state_dict", "other_parameter", "rows", "trained_on")
    return _sent_by_first(config, None if checkpoint is None else {name: checkpoint[name] for name in names})


def _sent_by_first(config: Config, content: Any) -> Any:
    """``content`` of the first process, tensors and plain data, as a file would hold it."""
    data = torch.empty(0, dtype=torch.uint8)
    if is_first(config):
        file = io.BytesIO()
        torch.save(content, file)
        data = torch.frombuffer(file.getbuffer(), dtype=torch.uint8)
    size = torch.tensor([len(data)])
    dist.broadcast(size, 0)
    if not is_first(config):
        data = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, 0)
    if is_first(config):
        return content
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location=config["device"], weights_only=True)


def _generators() -> tuple:
    """The states of those on the CPU, from which negative items are drawn."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_generators(states: tuple) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """() float64 on the CPU: another one for other values, as good as always."""
    flat = tensor.detach().reshape(-1).double()
    places = torch.arange(1, len(flat) + 1, device=flat.device, dtype=torch.float64)
    return (flat * (1 + places.sqrt())).sum().nan_to_num().cpu()
