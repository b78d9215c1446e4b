"""The n best of many scores that are never held all at once, and random draws."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import n_true, true_at

_DIGIT = 16
# distance of the keys that are sampled; a prime, so that they are not all of one column
STRIDE = 61
# keys that are kept to be compared one by one, at most, beside those that may be chosen
_NEAR = 2**18

# (number of a block, highest key or None) -> the block's `sortable` keys up to that, (m,), and the place of each
# in the block, (m,) int64, ascending
BlockKeys = Callable[[int, int | None], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sample:
    """A sample of the keys, which tells what need not be looked at.

    Attributes:
        keys: (s,) `sortable`.
        stride: how many keys each of them stands for.
        alike: how many of them may be correlated at a time, as those of one row are.
    """

    keys: Tensor
    stride: int
    alike: int = 1

    def bracket(self, n: int) -> tuple[int, int]:
        """Keys between which the ``n``-th lowest of all almost certainly is."""
        ordered, limits = self.keys.sort().values, torch.iinfo(self.keys.dtype)
        at, margin = n / self.stride, 2 * math.sqrt(len(ordered) * self.alike) + 1
        low, high = int(at - margin), int(at + margin)
        return (
            int(ordered[low]) if 0 <= low < len(ordered) else limits.min,
            int(ordered[high]) if high < len(ordered) else limits.max,
        )


@dataclass(frozen=True)
class Choice:
    """The lowest of the keys of several blocks.

    Attributes:
        counts: how many are chosen of each block.
        cut: the key below which all are chosen; None if all keys are, or none.
        ties: how many of the keys equal to ``cut`` are chosen of each block.
        found: the places of those below the cut in each block, if they were kept.
    """

    counts: list[int]
    cut: int | None
    ties: list[int]
    found: list[Tensor] | None = None

    @property
    def n(self) -> int:
        return sum(self.counts)

    def of_block(self, number: int, generator: torch.Generator, candidates: BlockKeys) -> Tensor | None:
        """The places of a block's chosen keys, (n,) int64, ascending, or None; ties are broken at random.

        Args:
            candidates: that of `choose`. It is not kept, since its owner may keep the choice: such a cycle holds
                collected gradients until Python looks for cycles.
        """
        if not self.counts[number]:
            return None
        if self.found is not None and not self.ties[number]:
            return self.found[number].long()
        keys, places = candidates(number, None)
        if self.cut is None:
            return places
        chosen = keys < self.cut
        if self.ties[number]:
            chosen |= draw(keys == self.cut, self.ties[number], generator)
        return places[true_at(chosen)]


def choose(
    candidates: BlockKeys, n_blocks: int, n: int, generator: torch.Generator, sample: Sample | None = None
) -> Choice:
    """The ``n`` lowest of all keys, or all if they are fewer.

    With a ``sample`` each block is looked at once, and only keys that may be chosen are kept; without, a few
    times, and none are kept. If there are too many ties, or the sample was unlucky, keys are counted by their
    digits.
    """
    nothing = [0] * n_blocks
    if n <= 0:
        return Choice(nothing, None, nothing)
    found, near = None, None
    if sample is not None:
        near = _look_near(candidates, n_blocks, (None, sample.bracket(n)[1]), 2 * n + _NEAR)
        if near is not None and sum(len(some.keys) for some in near) > n:
            found = near
    if found is None:
        counts, sample = _look_through(candidates, n_blocks)
        if n >= sum(counts):
            return Choice(counts, None, nothing)
        near = _look_near(candidates, n_blocks, sample.bracket(n), _NEAR)
    cut = None if near is None else _cut(near, n)
    if cut is None:
        cut = find_cut(lambda: (candidates(number, None)[0] for number in range(n_blocks) if counts[number]), n)
        near = (_Near.of(*candidates(number, cut), cut) for number in range(n_blocks))
    sizes = [(some.below + n_true(some.keys < cut), n_true(some.keys == cut)) for some in near]
    ties = share_out(n - sum(better for better, _ in sizes), [equal for _, equal in sizes], generator)
    counts = [better + of_ties for (better, _), of_ties in zip(sizes, ties)]
    return Choice(counts, cut, ties, found and [some.lower_than(cut) for some in found])


def sortable(scores: Tensor) -> Tensor:
    """Integers in the order of the floats ``scores``, int64 for float64, else int32; ``~`` reverses the order."""
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
    """Divide ``total`` in proportion to ``sizes``, rounded at random, never more than a size."""
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
        # the expected number of draws until enough distinct ones are hit, and a margin
        missing = (k - count) / (pool_size - count)
        draws = int(-len(pool) * math.log1p(-missing) + 4 * math.sqrt(k) + 8)
        drawn = torch.randint(len(pool), (draws,), generator=generator).to(pool.device)
        chosen[drawn] = True
        chosen &= pool
        count = n_true(chosen)
    while count > k:
        # the last draws go, so that no position is favoured
        last, drawn = drawn[k - count :], drawn[: k - count]
        chosen[last] = False
        count = n_true(chosen)
    return chosen


@dataclass(frozen=True)
class _Near:
    """The candidates of a block near the cut, and how many are lower."""

    keys: Tensor
    places: Tensor
    below: int = 0

    @classmethod
    def of(cls, keys: Tensor, places: Tensor, low: int) -> "_Near":
        near = keys.masked_select(keys >= low)
        return cls(near, places[:0], len(keys) - len(near))

    def lower_than(self, cut: int) -> Tensor:
        return self.places[true_at(self.keys < cut)].int()


def _look_near(
    candidates: BlockKeys, n_blocks: int, bracket: tuple[int | None, int], most: int
) -> list[_Near] | None:
    """The candidates of each block within ``bracket``; None if there are more than ``most``."""
    low, high = bracket
    near = []
    for number in range(n_blocks):
        some = candidates(number, high)
        near.append(_Near(*some) if low is None else _Near.of(*some, low))
        most -= len(near[-1].keys)
        if most < 0:
            return None
    return near


def _cut(near: list[_Near], n: int) -> int | None:
    """The ``n``-th lowest key, if it is near."""
    n -= sum(some.below for some in near)
    keys = torch.cat([some.keys for some in near])
    return int(keys.kthvalue(n).values) if 0 < n <= len(keys) else None


def _look_through(candidates: BlockKeys, n_blocks: int) -> tuple[list[int], Sample]:
    """How many keys each block has, and a sample of them."""
    counts, sample = [], []
    for number in range(n_blocks):
        keys, _ = candidates(number, None)
        counts.append(len(keys))
        # not a view, which would keep them all
        sample.append(keys[::STRIDE].clone())
    return counts, Sample(torch.cat(sample), STRIDE)
