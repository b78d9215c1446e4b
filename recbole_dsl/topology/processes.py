"""What several processes that train one model must have in common."""

from collections.abc import Mapping

import torch
import torch.distributed as dist

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.gradients import is_distributed


def refuse_different_topologies(weights: Mapping[str, SparseWeight]) -> None:
    """Raise a DSLError, on every process, unless all have the same entries of ``weights`` alive.

    Gradients are added up slot by slot, so that they would be taken for those of other entries.
    """
    if not is_distributed() or not weights:
        return
    sums = torch.stack([_checksum(weight) for weight in weights.values()])
    lowest, highest = sums.clone(), sums.clone()
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    for name, equal in zip(weights, (lowest == highest).tolist()):
        if not equal:
            raise DSLError(
                f"{name}: has another topology from process to process; before sparsify() give all the same "
                "seed and the same values"
            )


def _checksum(weight: SparseWeight) -> torch.Tensor:
    """() int64."""
    total = weight.values.new_zeros((), dtype=torch.int64)
    for tensor in (weight.columns, weight.row_offsets):
        places = torch.arange(1, len(tensor) + 1, device=tensor.device)
        total = total * 31 + ((tensor.long() + 1) * places * places).sum()
    return total
