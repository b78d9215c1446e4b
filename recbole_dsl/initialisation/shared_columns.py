"""A start for tables whose rows are multiplied with each other, and whose values the data does not give."""

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
def share_columns(weight: SparseWeight, generator: torch.Generator, counts: Tensor | None = None) -> None:
    """Move the entries of ``weight`` to the first columns of its rows, in place.

    A column that only one of two rows has adds nothing to their product. At density 0.1, two random rows share 0.6
    of 64 columns.

    Args:
        weight: with values from one distribution, whatever their place.
        counts: (rows,): how often each row is trained. Rows have entries in proportion to the roots of these
            numbers, all columns at most. By default they have as many; some at random have one entry more, so that
            the number of entries stays.
    """
    wanted = torch.ones(weight.n_rows) if counts is None else counts.clamp(min=_NEVER) ** _POWER
    # the divisors of Sainte-Laguë: the largest quotients are seats in proportion to votes
    divisors = torch.arange(weight.n_columns) + 0.5
    spec = MaskSpec(weight.n_rows, weight.n_columns, weight.nnz, weight.padding_row, keep_rows=False)
    alive = largest_entries(spec, lambda start, stop: wanted[start:stop, None] / divisors, generator)
    # as plain numbers, which the new topology takes in its own order
    values = unmarked(weight.values).detach().clone()
    weight.exchange(lambda _, old: exchanged(old, next(alive).view(-1).to(old.device)), weight.nnz)
    weight.values.detach().copy_(values)
