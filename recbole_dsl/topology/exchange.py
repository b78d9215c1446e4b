"""One topology update: weights are pruned, and as many are grown."""

from collections.abc import Sequence

from torch import Tensor

from recbole_dsl.topology.blocks import Block, Part, Rules
from recbole_dsl.topology.grow_selection import Growing
from recbole_dsl.topology.prune_selection import Pruning


def exchange(parts: Sequence[Part], ratio: float, rules: Rules) -> int:
    """Prune and grow the share ``ratio`` of the alive weights of ``parts``, which share one budget.

    Each tensor is passed twice, block by block: once to find what may change, once to change it. That takes little
    memory beside the collected gradients.

    Returns:
        how many were pruned, and as many grown.
    """
    nnz = sum(part.weight.nnz for part in parts)
    n = min(round(ratio * nnz), sum(part.weight.capacity for part in parts) - nnz)
    if n <= 0:
        return 0
    blocks = [Block(part, *bounds) for part in parts for bounds in part.weight.row_blocks()]
    pruning = Pruning(blocks, n, rules)
    growing = Growing(blocks, pruning.n, rules)
    first = 0
    for part in parts:
        mine = range(first, first + sum(block.part is part for block in blocks))
        size = part.weight.nnz + sum(growing.counts[i] - pruning.counts[i] for i in mine)

        def change(number: int, positions: Tensor, first: int = first) -> tuple[Tensor, Tensor]:
            block = blocks[first + number]
            grown = growing.positions(first + number, positions)
            block.part.explored.mark(grown + block.start * block.weight.n_columns)
            return pruning.slots(first + number), grown

        part.weight.exchange(change, size, part.states)
        first = mine.stop
    return pruning.n
