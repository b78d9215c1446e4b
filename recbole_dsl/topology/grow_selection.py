"""Which positions an update grows."""

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import true_at
from recbole_dsl.topology.blocks import Block, Rules
from recbole_dsl.topology.grow_criteria import Candidates
from recbole_dsl.topology.n_lowest import choose, draw, share_out, sortable


class Growing:
    """The ``n`` free positions of ``blocks`` with the highest scores; where too few have one, others at random.

    Attributes:
        counts: how many of each block.
    """

    def __init__(self, blocks: list[Block], n: int, rules: Rules):
        self._blocks, self._rules = blocks, rules
        self._choice = choose(self._keys, len(blocks), n, rules.generator)
        # where every scored one grows, it is known how many of each block are scored
        scored = self._choice.counts
        unscored = [block.n_free - count for block, count in zip(blocks, scored)]
        self._others = share_out(n - self._choice.n, unscored, rules.generator)
        self.counts = [a + b for a, b in zip(scored, self._others)]

    def mask(self, i: int, positions: Tensor) -> Tensor:
        """(size of block ``i``,) bool: what grows; ``positions`` are those of its alive entries."""
        block, generator = self._blocks[i], self._rules.generator
        found = self._scored(i)
        if self._others[i]:
            free = block.free(positions)
            if found is not None:
                free.index_fill_(0, found[0], False)
            grown = draw(free, self._others[i], generator)
        else:
            grown = torch.zeros(block.size, dtype=torch.bool, device=positions.device)
        if found is not None and self._choice.counts[i]:
            scored, keys = found
            grown.index_fill_(0, scored.masked_select(self._choice.of_block(i, keys, generator)), True)
        return grown

    def _keys(self, i: int) -> Tensor | None:
        found = self._scored(i)
        return None if found is None else found[1]

    def _scored(self, i: int) -> tuple[Tensor, Tensor] | None:
        """Positions in block ``i`` that may grow and score above 0, and their keys; None where nothing scores."""
        block = self._blocks[i]
        part, weight = block.part, block.weight
        rows = None
        if part.buffer is not None:
            rows, gradient = part.buffer.held(block.start, block.stop)
            if not len(rows):
                return None
            rows = None if len(rows) == block.stop - block.start else rows
        elif self._rules.grow.needs_gradient:
            return None
        else:
            gradient = weight.values.new_zeros(()).expand(block.stop - block.start, weight.n_columns)

        def ever_alive() -> Tensor:
            first = block.start * weight.n_columns
            marked = part.explored.marked_in(first, first + block.size).view(-1, weight.n_columns)
            return marked if rows is None else marked[rows]

        score = self._rules.grow.score(Candidates(gradient, ever_alive)).nan_to_num(nan=0.0, posinf=0.0)
        index = true_at((self._free(block, rows) & (score > 0)).view(-1))
        keys = ~sortable(score.reshape(-1)[index])
        if rows is not None:
            row = torch.div(index, weight.n_columns, rounding_mode="floor")
            index += (rows[row] - row) * weight.n_columns
        return index, keys

    def _free(self, block: Block, rows: Tensor | None) -> Tensor:
        """What may grow of the rows ``rows`` (r,) of a block, None for all: (r, columns), bool."""
        weight = block.weight
        if rows is None or 4 * len(rows) > block.stop - block.start:
            free = block.free(block.positions()).view(-1, weight.n_columns)
            return free if rows is None else free[rows]
        row, _, columns = weight.entries_of(rows + block.start)
        free = torch.ones(len(rows), weight.n_columns, dtype=torch.bool, device=rows.device)
        free.view(-1).index_fill_(0, row * weight.n_columns + columns, False)
        if block.padding:
            free[rows + block.start == weight.padding_row] = False
        return free
