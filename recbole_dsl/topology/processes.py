"""Keeping topology, values and moments the same in all processes that train one model."""

from collections.abc import Mapping, MutableMapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.slot_tensor import unmarked
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.gradients import is_distributed, scrambled


def refuse_different_topologies(weights: Mapping[str, SparseWeight], step: int) -> None:
    """Raise a DSLError, in every process, unless all have the same topology of ``weights`` after ``step``.

    Gradients are all-reduced slot by slot, and would be taken for those of other entries.
    """
    if is_distributed() and weights:
        _refuse_differences("another topology", weights, [_digest(weight) for weight in weights.values()], step)


def decided_by_first(numbers: Sequence[float], weights: Mapping[str, SparseWeight]) -> list[float]:
    """The ``numbers`` of the first process, in every process."""
    device = next(iter(weights.values())).values.device
    sent = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.broadcast(sent, 0)
    return sent.tolist()


def take_entries_of_first(
    weights: Mapping[str, SparseWeight], states: Mapping[str, Sequence[MutableMapping]], step: int
) -> None:
    """Give every process the values, gradients and moments that the first has for ``weights``, in place.

    Each process computes its own, and those of different hardware differ in the last digits. After this an update
    decides the same in all of them.

    Args:
        states: of the optimizers, for each weight.
    """
    tensors = {name: _entries(weight, states[name]) for name, weight in weights.items()}
    sizes = [torch.tensor(hash(tuple(map(len, some)))) for some in tensors.values()]
    _refuse_differences("another number of values or moments", weights, sizes, step)
    for some in tensors.values():
        for tensor in some:
            take_from_first(tensor)


def take_from_first(tensor: Tensor) -> None:
    """Give ``tensor`` the bits that it has in the first process, in place."""
    plain = unmarked(tensor.detach())
    sent = plain.contiguous().view(-1)
    # few backends broadcast every type
    dist.broadcast(sent.view(torch.uint8), 0)
    if not plain.is_contiguous():
        plain.copy_(sent.view(plain.shape))


def _entries(weight: SparseWeight, states: Sequence[MutableMapping]) -> list[Tensor]:
    """The tensors with one number for each alive entry."""
    gradient = weight.values.grad
    moments = [t for state in states for _, t in sorted(state.items()) if isinstance(t, Tensor)]
    tensors = [weight.values, *([] if gradient is None or gradient.is_sparse else [gradient]), *moments]
    return [tensor for tensor in tensors if tensor.shape == weight.values.shape]


def _refuse_differences(what: str, weights: Mapping[str, SparseWeight], numbers: list[Tensor], step: int) -> None:
    own = torch.stack(numbers).to(next(iter(weights.values())).values.device)
    of_all = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(of_all, own)
    for name, found in zip(weights, torch.stack(of_all, 1).tolist()):
        usual = max(found, key=found.count)
        others = [str(rank) for rank, number in enumerate(found) if number != usual]
        if others:
            raise DSLError(
                f"{name}: has {what} in process {', '.join(others)} than in the others after {step} steps; "
                "give all the same seed and values before sparsify(), and change nothing in one of them alone"
            )


def _digest(weight: SparseWeight) -> Tensor:
    """() int64: a hash of the topology."""
    total = weight.values.new_zeros((), dtype=torch.int64)
    for block in weight.row_blocks():
        total += scrambled(weight.positions_in(*block) + block[0] * weight.n_columns).sum()
    return total
