"""How many weights each tensor may keep alive."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recbole_dsl.errors import DSLError

# of the density: tables of items are as many times as dense as those of users. Chosen on the validation data of
# BPR on ml-100k, ml-1m and lastfm, at densities from 0.01 to 0.2: results/quality.md
_ITEM_POWER = 0.3


@dataclass(frozen=True)
class TensorSize:
    """The shape of one tensor, and how many of its entries may be alive.

    Attributes:
        is_of_items: whether it has a row for each item, and shares the weights with tensors of users.
    """

    name: str
    rows: int
    columns: int
    capacity: int
    is_of_items: bool = False

    @property
    def numel(self) -> int:
        return self.rows * self.columns


def allocate(
    sizes: Sequence[TensorSize], density: float, budget: str, item_density_ratio: float | None = None
) -> list[int]:
    """Number of alive weights per tensor; they sum to ``round(density * total size)`` exactly.

    Tensors of items are ``item_density_ratio`` times as dense as the others. Each keeps at least one weight and at
    most its capacity. If padding rows leave less room than the density asks for, all of it is used. At density 1
    everything is alive, padding rows too.

    Args:
        budget: a name in `BUDGETS`.
        item_density_ratio: None for ``density`` to the power 0.3.

    Raises:
        DSLError: if there are fewer weights than tensors.
    """
    if density == 1:
        return [s.numel for s in sizes]
    size = sum(s.numel for s in sizes)
    total = min(round(density * size), sum(s.capacity for s in sizes))
    if total < len(sizes):
        smallest = min(sizes, key=lambda s: s.numel)
        needed = math.ceil(len(sizes) / size * 1e6) / 1e6
        raise DSLError(
            f"density={density:g} leaves {smallest.name} no weight: {total} weights for {len(sizes)} "
            f"tensors; use density >= {needed:g} or name fewer targets"
        )
    ratio = density**_ITEM_POWER if item_density_ratio is None else item_density_ratio
    shares = [BUDGETS[budget](s) * (ratio if s.is_of_items else 1.0) for s in sizes]
    return _apportion(total, shares, [s.capacity for s in sizes])


def allocate_crossed(tables: Sequence[TensorSize], layers: Sequence[TensorSize], total: int) -> list[int]:
    """Number of alive weights per tensor, first of the tables; they sum to ``total``.

    The ``layers`` have the square of the tables' density, as in a dense model of fewer columns, whose layers lose
    rows and columns where its tables lose columns.
    """
    size, square_size = (sum(one.numel for one in some) for some in (tables, layers))
    # of: density * size + density**2 * square_size = total
    density = 2 * total / (size + math.sqrt(size**2 + 4 * square_size * total))
    shares = [density * one.numel for one in tables] + [density**2 * one.numel for one in layers]
    return _apportion(total, shares, [one.capacity for one in (*tables, *layers)])


def uniform(size: TensorSize) -> float:
    """The same density for every tensor."""
    return size.numel


def erk(size: TensorSize) -> float:
    """Erdős-Rényi kernel (Evci et al. 2020): weights in proportion to rows + columns, small tensors denser."""
    return size.rows + size.columns


# what each tensor's share of the budget is proportional to; "global" starts as uniform and lets the
# topology updates move weights between tensors
BUDGETS = {"uniform": uniform, "erk": erk, "global": uniform}


def _apportion(total: int, shares: Sequence[float], caps: Sequence[int]) -> list[int]:
    """Integers in [1, cap] nearest to a common multiple of ``shares`` that sum to ``total``."""
    low, high = 0.0, max(cap / share for cap, share in zip(caps, shares))

    def quotas(scale: float) -> list[float]:
        return [min(max(scale * share, 1.0), float(cap)) for share, cap in zip(shares, caps)]

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(quotas(middle)) < total else (low, middle)
    wanted = quotas(high)
    counts = [int(q) for q in wanted]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - wanted[i])
    difference = total - sum(counts)
    while difference:
        step = 1 if difference > 0 else -1
        for i in by_remainder if step > 0 else reversed(by_remainder):
            if difference and 1 <= counts[i] + step <= caps[i]:
                counts[i] += step
                difference -= step
    return counts
