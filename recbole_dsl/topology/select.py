"""The n best of many scores that are never held all at once, and draws at random."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Callable

import torch
from torch import Tensor

_DIGIT = 16


@dataclass(frozen=True)
class Cut:
    """Where the n best keys end: all better than ``key`` belong to them, and ``ties`` of those equal to it."""

    key: int
    ties: int


def sortable(scores: Tensor) -> Tensor:
    """Integers in the order of the floats ``scores``: int64 for float64, else int32."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    bits = scores.view(torch.int64 if scores.dtype == torch.float64 else torch.int32)
    # among negative floats the larger bits are the smaller number
    return bits ^ ((bits >> (8 * bits.element_size() - 1)) & torch.iinfo(bits.dtype).max)


def find_cut(keys: Callable[[], Iterable[Tensor]], n: int, largest: bool) -> Cut:
    """The ``n`` largest, or smallest, of all `sortable` keys, by counting their digits; nothing is sorted.

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
        if largest:
            counts = counts.flip(0)
        reached = counts.cumsum(0)
        found = int(torch.searchsorted(reached, n))
        n -= int(reached[found] - counts[found])
        digit = 2**_DIGIT - 1 - found if largest else found
        prefix = digit - 2 ** (_DIGIT - 1) if prefix is None else (prefix << _DIGIT) | digit
    return Cut(prefix, n)


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
    chosen, pool_size = torch.zeros_like(pool), int(pool.sum())
    if k == 0:
        return chosen
    if 2 * k > pool_size:
        return pool & ~draw(pool, pool_size - k, generator)
    if 2 * pool_size < len(pool):
        among = pool.nonzero().view(-1)
        chosen[among[_some(k, pool_size, generator).to(pool.device)]] = True
        return chosen
    count = 0
    while count < k:
        # so many draws hit, repeats left out, what is missing, and with some more they hardly ever fall short
        missing = (k - count) / (pool_size - count)
        draws = int(-len(pool) * math.log1p(-missing) + 4 * math.sqrt(k) + 8)
        chosen[torch.randint(len(pool), (draws,), generator=generator).to(pool.device)] = True
        chosen &= pool
        count = int(chosen.sum())
    if count > k:
        among = chosen.nonzero().view(-1)
        chosen[among[_some(count - k, count, generator).to(pool.device)]] = False
    return chosen


def _some(k: int, n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator)[:k]
