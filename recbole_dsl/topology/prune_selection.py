"""Which weights an update prunes."""

import torch
from torch import Tensor

from recbole_dsl.topology.blocks import Block, Part, Rules
from recbole_dsl.topology.n_lowest import choose, share_out, sortable
from recbole_dsl.topology.prune_criteria import AliveWeights, best_of_each_row


class Pruning:
    """The ``n`` least important alive weights of ``blocks``, or as many as may be pruned.

    Attributes:
        n: their number.
        counts: how many of each block.
    """

    def __init__(self, blocks: list[Block], n: int, rules: Rules):
        self._blocks, self._rules = blocks, rules
        self._best: dict[int, int] = {}
        self._coalesced: dict[Part, Tensor] = {}
        if not rules.keep_rows and len({block.part for block in blocks}) > 1:
            # no tensor may be emptied: its output and its gradients would stay zero for ever
            self._best = self._best_of_each_tensor()
        halves = (True, False) if rules.prune.by_sign else (None,)
        shares = [n]
        if len(halves) > 1:
            sizes = [sum(len(self._keys(i, half)[0]) for i in range(len(blocks))) for half in halves]
            shares = share_out(min(n, sum(sizes)), sizes, rules.generator)
        self._choices = {
            half: choose(lambda i, half=half: self._keys(i, half)[0], len(blocks), share, rules.generator)
            for half, share in zip(halves, shares)
        }
        self.counts = [sum(counts) for counts in zip(*(choice.counts for choice in self._choices.values()))]
        self.n = sum(self.counts)

    def mask(self, i: int) -> Tensor:
        """(slots of block ``i``,) bool: which of them go."""
        gone = None
        for half, choice in self._choices.items():
            keys, among = self._keys(i, half)
            chosen = choice.of_block(i, keys, self._rules.generator)
            if among is not None:
                chosen = torch.zeros_like(among).masked_scatter_(among, chosen)
            gone = chosen if gone is None else gone | chosen
        return gone

    def _keys(self, i: int, negative: bool | None) -> tuple[Tensor, Tensor | None]:
        """The keys of those weights of block ``i`` that may be pruned, and which these are, None for all."""
        importance = self._importance(i)
        among = importance < float("inf")
        if negative is not None:
            block = self._blocks[i]
            among &= (block.weight.values.detach()[block.first : block.last] < 0) == negative
        if among.all():
            return sortable(importance), None
        return sortable(importance.masked_select(among)), among

    def _importance(self, i: int) -> Tensor:
        block = self._blocks[i]
        weight = block.weight
        some = AliveWeights(
            weight.values.detach()[block.first : block.last],
            lambda: self._gradient(block),
            self._rules.threshold,
        )
        importance = self._rules.prune.importance(some).nan_to_num(nan=float("inf"), posinf=float("inf"))
        if self._rules.keep_rows:
            rows = torch.div(block.positions(), weight.n_columns, rounding_mode="floor")
            importance[best_of_each_row(importance, rows)] = float("inf")
        elif i in self._best:
            importance[self._best[i]] = float("inf")
        return importance

    def _gradient(self, block: Block) -> Tensor:
        """Of the block's values, (slots,), as a dense tensor, whatever the layout of the whole."""
        gradient = block.weight.values.grad
        if not gradient.is_sparse:
            return gradient[block.first : block.last]
        if block.part not in self._coalesced:
            self._coalesced[block.part] = gradient.coalesce()
        gradient = self._coalesced[block.part]
        (slots,), values = gradient.indices(), gradient.values()
        bounds = torch.tensor([block.first, block.last], device=slots.device)
        some = slice(*torch.searchsorted(slots, bounds).tolist())
        return values.new_zeros(block.last - block.first).index_copy_(0, slots[some] - block.first, values[some])

    def _best_of_each_tensor(self) -> dict[int, int]:
        """Block, and slot in it, of each tensor's most important weight."""
        best = {}
        for i, block in enumerate(self._blocks):
            importance = self._importance(i)
            if len(importance):
                value, slot = importance.max(0)
                before = best.get(block.part)
                if before is None or float(value) > before[0]:
                    best[block.part] = float(value), i, int(slot)
        return {i: slot for _, i, slot in best.values()}
