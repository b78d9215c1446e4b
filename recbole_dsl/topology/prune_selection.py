"""Which weights an update prunes."""

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import true_at
from recbole_dsl.topology.blocks import Block, Part, Rules
from recbole_dsl.topology.prune_criteria import AliveWeights, best_of_each_row
from recbole_dsl.topology.selection import STRIDE, BlockKeys, Sample, choose, share_out, sortable


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
            # an emptied tensor would stay empty: its output and its gradients are zero
            self._best = self._best_of_each_tensor()
        halves = (True, False) if rules.prune.by_sign else (None,)
        shares = [n]
        if len(halves) > 1:
            sizes = [sum(len(self._candidates(i, None, half)[0]) for i in range(len(blocks))) for half in halves]
            shares = share_out(min(n, sum(sizes)), sizes, rules.generator)
        self._choices = {
            half: choose(self._of_half(half), len(blocks), share, rules.generator, self._sample(half))
            for half, share in zip(halves, shares)
        }
        self.counts = [sum(counts) for counts in zip(*(choice.counts for choice in self._choices.values()))]
        self.n = sum(self.counts)

    def slots(self, i: int) -> Tensor:
        """(n,) int64, ascending, counted from the block's first: the slots of block ``i`` that go."""
        chosen = [
            choice.of_block(i, self._rules.generator, self._of_half(half))
            for half, choice in self._choices.items()
        ]
        chosen = [slots for slots in chosen if slots is not None]
        if len(chosen) == 1:
            return chosen[0]
        device = self._blocks[i].weight.values.device
        return torch.cat([torch.zeros(0, dtype=torch.long, device=device), *chosen]).sort().values

    def _of_half(self, negative: bool | None) -> BlockKeys:
        return lambda i, highest: self._candidates(i, highest, negative)

    def _candidates(self, i: int, highest: int | None, negative: bool | None) -> tuple[Tensor, Tensor]:
        """As `choose` asks for them: the weights of block ``i`` that may be pruned, and their slots."""
        block = self._blocks[i]
        keys = sortable(self._importance(i))
        among = keys <= _highest(keys, highest)
        if negative is not None:
            among &= (block.weight.values.detach()[block.first : block.last] < 0) == negative
        slots = true_at(among)
        return keys.index_select(0, slots), slots

    def _sample(self, negative: bool | None) -> Sample | None:
        """Keys of a sample of the weights, unless some are kept for their row or tensor."""
        if self._rules.keep_rows or self._best:
            return None
        sample = []
        for part in dict.fromkeys(block.part for block in self._blocks):
            keys = sortable(self._raw_importance(part, 0, part.weight.nnz, STRIDE))
            among = keys <= _highest(keys, None)
            if negative is not None:
                among &= (part.weight.values.detach()[::STRIDE] < 0) == negative
            sample.append(keys[among])
        return Sample(torch.cat(sample), STRIDE)

    def _importance(self, i: int) -> Tensor:
        block = self._blocks[i]
        importance = self._raw_importance(block.part, block.first, block.last)
        if self._rules.keep_rows:
            rows = torch.div(block.positions(), block.weight.n_columns, rounding_mode="floor")
            importance[best_of_each_row(importance, rows)] = float("inf")
        elif i in self._best:
            importance[self._best[i]] = float("inf")
        return importance

    def _raw_importance(self, part: Part, first: int, last: int, stride: int = 1) -> Tensor:
        """The criterion's importance of every ``stride``-th slot from ``first`` to ``last``."""
        some = AliveWeights(
            part.weight.values.detach()[first:last:stride],
            lambda: self._gradient(part, first, last)[::stride],
            self._rules.threshold,
        )
        return self._rules.prune.importance(some).nan_to_num(nan=float("inf"), posinf=float("inf"))

    def _gradient(self, part: Part, first: int, last: int) -> Tensor:
        """The gradient of the slots from ``first`` to ``last``, dense, whatever the layout of the whole."""
        gradient = part.weight.values.grad
        if not gradient.is_sparse:
            return gradient[first:last]
        if part not in self._coalesced:
            self._coalesced[part] = gradient.coalesce()
        gradient = self._coalesced[part]
        (slots,), values = gradient.indices(), gradient.values()
        bounds = torch.tensor([first, last], device=slots.device)
        some = slice(*torch.searchsorted(slots, bounds).tolist())
        return values.new_zeros(last - first).index_copy_(0, slots[some] - first, values[some])

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


def _highest(keys: Tensor, highest: int | None) -> int:
    """The highest key of a finite importance, at most ``highest``."""
    finite = sortable(keys.new_full((), float("inf"), dtype=_FLOATS[keys.dtype])).item() - 1
    return finite if highest is None else min(highest, finite)


_FLOATS = {torch.int32: torch.float32, torch.int64: torch.float64}
