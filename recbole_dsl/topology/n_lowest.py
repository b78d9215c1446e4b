"""The n best of many scores that are never held all at once, and draws at random."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import n_true, true_at

_DIGIT = 16
# every so many-th key is sampled; a prime, so that they are not all of one column
_STRIDE = 61
# keys that may be looked at one by one
_NEAR = 2**18


Keys = Callable[[int], Tensor | None]


@dataclass(frozen=True)
class Choice:
    """The lowest of the keys of several blocks.

    Attributes:
        counts: how many of each block.
        cut: the key below which all are chosen; None where it is all of them or none.
        ties: how many of the keys equal to ``cut`` are chosen, of each block.
    """

    counts: list[int]
    cut: int | None
    ties: list[int]

    @property
    def n(self) -> int:
        return sum(self.counts)

    def of_block(self, number: int, keys: Tensor, generator: torch.Generator) -> Tensor:
        """Which of a block's keys (n,) are chosen: bool. Equals are drawn at random."""
        if not self.counts[number]:
            return torch.zeros_like(keys, dtype=torch.bool)
        if self.cut is None:
            return torch.ones_like(keys, dtype=torch.bool)
        chosen = keys < self.cut
        if self.ties[number]:
            chosen |= draw(keys == self.cut, self.ties[number], generator)
        return chosen


def choose(keys: Keys, n_blocks: int, n: int, generator: torch.Generator) -> Choice:
    """The ``n`` lowest of all keys, or all if they are fewer; nothing is sorted but a few that are near the cut.

    Args:
        keys: gives those of a block, `sortable`, or None if it has none; called a few times for each.
    """
    counts, sample = [], []
    for number in range(n_blocks):
        some = keys(number)
        counts.append(0 if some is None else len(some))
        if counts[-1]:
            # not a view, which would keep them all
            sample.append(some[::_STRIDE].clone())
    if n >= sum(counts):
        return Choice(counts, None, [0] * n_blocks)
    if n <= 0:
        return Choice([0] * n_blocks, None, [0] * n_blocks)
    bracket = _bracket(torch.cat(sample).sort().values, n / sum(counts))
    found = _cut_near(keys, counts, n, bracket)
    if found is None:
        cut = find_cut(lambda: (keys(number) for number in range(n_blocks) if counts[number]), n)
        found = cut, *_count(keys, counts, cut)
    cut, better, equal = found
    ties = share_out(n - sum(better), equal, generator)
    return Choice([a + b for a, b in zip(better, ties)], cut, ties)


def sortable(scores: Tensor) -> Tensor:
    """Integers in the order of the floats ``scores``, int64 for float64, else int32; ``~`` turns it round."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    bits = scores.view(torch.int64 if scores.dtype == torch.float64 else torch.int32)
    # among negative floats the larger bits are the smaller number
    return bits ^ ((bits >> (8 * bits.element_size() - 1)) & torch.iinfo(bits.dtype).max)


def find_cut(keys: Callable[[], Iterable[Tensor]], n: int) -> int:
    """The ``n``-th lowest of all `sortable` keys, by counting their digits.

    Args:
        keys: gives them, some at a time; called once for each 16 bits of a key. There are at least n.
        n: at least 1.
    """
    prefix, shift = None, None
    while shift != 0:
        counts = None
        for some in keys():
            if counts is None:
                counts = torch.zeros(2**_DIGIT, dtype=torch.long, device=some.device)
                shift = (8 * some.element_size() if shift is None else shift) - _DIGIT
            if prefix is None:
                digits = (some >> shift) + 2 ** (_DIGIT - 1)
            else:
                digits = (some[(some >> (shift + _DIGIT)) == prefix] >> shift) & (2**_DIGIT - 1)
            counts += torch.bincount(digits, minlength=2**_DIGIT)
        reached = counts.cumsum(0)
        digit = int(torch.searchsorted(reached, n))
        n -= int(reached[digit] - counts[digit])
        prefix = digit - 2 ** (_DIGIT - 1) if prefix is None else (prefix << _DIGIT) | digit
    return prefix


def share_out(total: int, sizes: Sequence[int], generator: torch.Generator) -> list[int]:
    """Divide ``total`` in proportion to ``sizes``, none of which is exceeded, and round at random."""
    size = sum(sizes)
    if not size:
        return [0] * len(sizes)
    start = int(torch.randint(size, (), generator=generator))
    shares, reached, before = [], 0, 0
    for part in sizes:
        reached += part
        upto = (total * reached + start) // size
        shares.append(upto - before)
        before = upto
    return shares


def draw(pool: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose ``k`` of the True entries of ``pool`` (n,) at random: (n,) bool, on its device."""
    chosen, pool_size = torch.zeros_like(pool), n_true(pool)
    if k == 0:
        return chosen
    if 2 * k > pool_size:
        return pool & ~draw(pool, pool_size - k, generator)
    if 2 * pool_size < len(pool):
        among = true_at(pool)
        chosen[among[torch.randperm(pool_size, generator=generator)[:k].to(pool.device)]] = True
        return chosen
    count = 0
    while count < k:
        # so many draws hit what is missing, repeats left out, and with some more they hardly ever fall short
        missing = (k - count) / (pool_size - count)
        draws = int(-len(pool) * math.log1p(-missing) + 4 * math.sqrt(k) + 8)
        drawn = torch.randint(len(pool), (draws,), generator=generator).to(pool.device)
        chosen[drawn] = True
        chosen &= pool
        count = n_true(chosen)
    while count > k:
        # no position is favoured by what was drawn when
        last, drawn = drawn[k - count :], drawn[: k - count]
        chosen[last] = False
        count = n_true(chosen)
    return chosen


def _cut_near(
    keys: Keys, counts: list[int], n: int, bracket: tuple[int, int]
) -> tuple[int, list[int], list[int]] | None:
    """The ``n``-th lowest key, if it is within ``bracket`` and few others are, and what `_count` gives for it."""
    below, near, n_near = [0] * len(counts), {}, 0
    for number, count in enumerate(counts):
        if count:
            some = keys(number)
            is_below = some < bracket[0]
            below[number] = n_true(is_below)
            near[number] = some.masked_select((some <= bracket[1]) & ~is_below)
            n_near += len(near[number])
            if n_near > _NEAR:
                return None
    left = n - sum(below)
    if not 0 < left <= n_near:
        return None
    cut = int(torch.cat(list(near.values())).kthvalue(left).values)
    better, equal = _count(near.__getitem__, [number in near for number in range(len(counts))], cut)
    return cut, [a + b for a, b in zip(below, better)], equal


def _count(keys: Keys, present: Sequence[int], cut: int) -> tuple[list[int], list[int]]:
    """How many keys of each block are below ``cut``, and how many equal to it."""
    better, equal = [0] * len(present), [0] * len(present)
    for number, is_present in enumerate(present):
        if is_present:
            some = keys(number)
            better[number], equal[number] = n_true(some < cut), n_true(some == cut)
    return better, equal


def _bracket(ordered: Tensor, share: float) -> tuple[int, int]:
    """Keys between which the one that has the ``share`` below it is almost certainly, given a sample in order."""
    size, limits = len(ordered), torch.iinfo(ordered.dtype)
    at, margin = share * size, 2 * math.sqrt(size) + 1
    low, high = int(at - margin), int(at + margin)
    return int(ordered[low]) if low >= 0 else limits.min, int(ordered[high]) if high < size else limits.max
