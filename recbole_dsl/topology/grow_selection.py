"""Which positions an update grows."""

import torch
from torch import Tensor

from recbole_dsl.errors import DSLError
from recbole_dsl.sparse.compressed_rows import true_at
from recbole_dsl.topology.blocks import Block, Rules
from recbole_dsl.topology.grow_criteria import Candidates
from recbole_dsl.topology.selection import Sample, choose, draw, share_out, sortable

# distance of the rows that are sampled
_STRIDE = 16
# the key of the lowest score above 0
_LOWEST = -2


class Growing:
    """The ``n`` free positions of ``blocks`` with the highest scores, and others at random if too few have one.

    Attributes:
        counts: how many of each block.
    """

    def __init__(self, blocks: list[Block], n: int, rules: Rules):
        self._blocks, self._rules = blocks, rules
        self._choice = choose(self._candidates, len(blocks), n, rules.generator, self._sample())
        # others grow only where all that are scored do, and then `counts` has their number
        scored = self._choice.counts
        unscored = [block.n_free - count for block, count in zip(blocks, scored)]
        self._others = share_out(n - self._choice.n, unscored, rules.generator)
        self.counts = [a + b for a, b in zip(scored, self._others)]

    def positions(self, i: int, alive: Tensor) -> Tensor:
        """(n,) int64, ascending: the positions in block ``i`` that grow; its entries are at ``alive``."""
        block, generator = self._blocks[i], self._rules.generator
        scored = self._choice.of_block(i, generator, self._candidates)
        if not self._others[i]:
            return scored if scored is not None else alive[:0]
        free = block.free(alive)
        if scored is not None:
            free.index_fill_(0, scored, False)
        grown = draw(free, self._others[i], generator)
        if scored is not None:
            grown.index_fill_(0, scored, True)
        return true_at(grown)

    def _candidates(self, i: int, highest: int | None) -> tuple[Tensor, Tensor]:
        """As `choose` asks for them: the positions in block ``i`` that may grow and score above 0, best first."""
        block = self._blocks[i]
        if block.part.buffer is not None:
            rows, gradient = block.part.buffer.held(block.start, block.stop)
        else:
            # without a buffer no gradient was asked for, or none came
            rows = None
            gradient = block.weight.values.new_zeros(()).expand(block.stop - block.start, block.weight.n_columns)
        keys = self._keys(block, rows, gradient)
        places = true_at(keys <= (_LOWEST if highest is None else min(highest, _LOWEST)))
        keys = keys.index_select(0, places)
        if rows is not None and len(rows) < block.stop - block.start:
            row = torch.div(places, block.weight.n_columns, rounding_mode="floor")
            places += (rows.index_select(0, row) - row) * block.weight.n_columns
        return keys, places

    def _sample(self) -> Sample | None:
        """Keys of a sample of the rows that got a gradient, if every tensor collects gradients."""
        parts = dict.fromkeys(block.part for block in self._blocks)
        if any(part.buffer is None for part in parts):
            return None
        sample = []
        for part in parts:
            whole = Block(part, 0, part.weight.n_rows, 0, part.weight.nnz)
            keys = self._keys(whole, *part.buffer.held(0, part.weight.n_rows, _STRIDE))
            sample.append(keys[keys <= _LOWEST])
        return Sample(torch.cat(sample), _STRIDE, max(part.weight.n_columns for part in parts))

    def _keys(self, block: Block, rows: Tensor | None, gradient: Tensor) -> Tensor:
        """Keys of the rows ``rows`` of a block, None for all: (r * columns,); above `_LOWEST` nothing may grow."""
        weight = block.weight

        def ever_alive() -> Tensor:
            if block.part.explored.stride > 1:
                raise DSLError("grow: a criterion that reads ever_alive() must be made with needs_record=True")
            first = block.start * weight.n_columns
            marked = block.part.explored.marked_in(first, first + block.size).view(-1, weight.n_columns)
            return marked if rows is None else marked[rows]

        score = self._rules.grow.score(Candidates(gradient, ever_alive)).nan_to_num(nan=0.0, posinf=0.0)
        keys = ~sortable(score.reshape(-1))
        if rows is None or len(rows) == block.stop - block.start:
            return keys.masked_fill_(~block.free(block.positions()), 0)
        row, _, columns = weight.index.entries_of(rows + block.start)
        keys.index_fill_(0, row * weight.n_columns + columns, 0)
        if block.padding:
            keys.view(-1, weight.n_columns)[rows + block.start == weight.padding_row] = 0
        return keys
