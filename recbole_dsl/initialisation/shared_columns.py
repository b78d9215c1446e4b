"""A start for tables whose rows are multiplied with each other, and whose values the data does not give."""

import torch

from recbole_dsl.initialisation.masks import MaskSpec, largest_entries
from recbole_dsl.sparse.rewrite import exchanged
from recbole_dsl.sparse.slot_tensor import unmarked
from recbole_dsl.sparse.weight import SparseWeight


@torch.no_grad()
def share_columns(weight: SparseWeight, generator: torch.Generator) -> None:
    """Move the entries of ``weight`` to the same first columns in every row, in place.

    Some rows at random have one entry more, so that the number of entries stays. A column that only one of two
    rows has adds nothing to their product. At density 0.1, two random rows share 0.6 of 64 columns.

    Args:
        weight: with values from one distribution, whatever their place.
    """
    spec = MaskSpec(weight.n_rows, weight.n_columns, weight.nnz, weight.padding_row, keep_rows=False)
    earlier = torch.arange(weight.n_columns, 0, -1, dtype=torch.float32)
    alive = largest_entries(spec, lambda start, stop: earlier.expand(stop - start, -1), generator)
    # as plain numbers, which the new topology takes in its own order
    values = unmarked(weight.values).detach().clone()
    weight.exchange(lambda _, old: exchanged(old, next(alive).view(-1).to(old.device)), weight.nnz)
    weight.values.detach().copy_(values)
