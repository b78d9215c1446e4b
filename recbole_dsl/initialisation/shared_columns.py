"""A start for tables whose rows are multiplied with each other, and whose values the data does not give."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from recbole_dsl.initialisation.masks import MaskSpec, largest_entries
from recbole_dsl.sparse.rewrite import exchanged
from recbole_dsl.sparse.slot_tensor import unmarked
from recbole_dsl.sparse.weight import SparseWeight

# rows have entries in proportion to how often they are trained, to this power
_POWER = 0.5
# rows that are never trained come last, from their first column on
_NEVER = 1e-12


@torch.no_grad()
def share_columns(
    weight: SparseWeight, generator: torch.Generator, counts: Tensor | None = None, nnz: int | None = None
) -> None:
    """Move the entries of ``weight`` to the first columns of its rows, in place.

    A column that only one of two rows has adds nothing to their product. At density 0.1, two random rows share 0.6
    of 64 columns.

    Args:
        weight: with values from one distribution, whatever their place.
        counts: (rows,): how often each row is trained. Rows have entries in proportion to the roots of these
            numbers, all columns at most. By default they have as many; some at random have one entry more, so that
            the number of entries stays.
        nnz: how many entries there are then; by default as many as before.
    """
    wanted = torch.ones(weight.n_rows) if counts is None else counts.clamp(min=_NEVER) ** _POWER
    # the divisors of Sainte-Laguë: the largest quotients are seats in proportion to votes
    divisors = torch.arange(weight.n_columns) + 0.5
    spec = _spec(weight, nnz)
    _move(weight, spec, largest_entries(spec, lambda i, j: wanted[i:j, None] / divisors, generator), generator)


@torch.no_grad()
def cross_columns(
    weight: SparseWeight, filled: Tensor, generator: torch.Generator, nnz: int | None = None
) -> None:
    """Move the entries of a square ``weight`` to where both of its sides are filled most often, in place.

    It multiplies a vector's entry of its row with that of its column. If either is 0, so is its gradient.

    Args:
        weight: (n, n), with values from one distribution, whatever their place.
        filled: (n,): how often each entry of the vector is not 0, between 0 and 1.
        nnz: how many entries there are then; by default as many as before.
    """
    spec = _spec(weight, nnz)
    _move(weight, spec, largest_entries(spec, lambda i, j: filled[i:j, None] * filled, generator), generator)


def column_shares(tables: Iterable[SparseWeight], counts: Mapping[SparseWeight, Tensor]) -> Tensor:
    """How often a row of the ``tables`` has an entry in each of their columns: (columns,), float32, 0 to 1.

    Args:
        tables: as wide as each other.
        counts: (rows,) for each table: how often each row is looked up. All others are as often as each other.
    """
    of_columns, of_all = 0, 0
    for weight in tables:
        seen = counts.get(weight, torch.ones(weight.n_rows)).double()
        lengths = weight.row_offsets.cpu().diff().long()
        columns = weight.columns.cpu().long()
        of_columns += torch.bincount(columns, seen.repeat_interleave(lengths), minlength=weight.n_columns)
        of_all += seen.sum()
    return (of_columns / of_all).float()


def _spec(weight: SparseWeight, nnz: int | None) -> MaskSpec:
    n = weight.nnz if nnz is None else nnz
    return MaskSpec(weight.n_rows, weight.n_columns, n, weight.padding_row, keep_rows=False)


def _move(weight: SparseWeight, spec: MaskSpec, alive: Iterator[Tensor], generator: torch.Generator) -> None:
    # as plain numbers, which the new topology takes in its own order
    values = unmarked(weight.values).detach().clone()
    weight.exchange(lambda _, old: exchanged(old, next(alive).view(-1).to(old.device)), spec.nnz)
    if len(values) != spec.nnz:
        # all are from one distribution: each as often as another
        values = values[torch.randperm(spec.nnz, generator=generator).to(values.device) % len(values)]
    weight.values.detach().copy_(values)
