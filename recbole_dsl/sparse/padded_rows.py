"""Dense rows of a sparse weight on a device that is not to be waited for."""

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.gather import all_bits, signed_view


def padded_rows(index: CompressedRows, values: Tensor, ids: Tensor, longest: int) -> Tensor:
    """The dense rows ``ids``: (n, columns), differentiable in ``values``.

    How many entries the rows have is known on the device alone, and to ask for it would make the host wait until
    the device has done all that it was told before. So each row is read as if it had as many as the longest one.

    Args:
        values: (nnz,) of the alive entries of ``index``, floating-point.
        ids: (n,) int64.
        longest: the most entries that a row of ``index`` has.
    """
    starts, ends = index.row_offsets.unfold(0, 2, 1).index_select(0, ids).long().unbind(1)
    slots = starts.unsqueeze(1) + torch.arange(longest, device=ids.device)
    is_entry = slots < ends.unsqueeze(1)
    slots = slots.clamp_max(len(values) - 1).view(-1)
    columns = signed_view(index.columns).index_select(0, slots).long() & all_bits(index.columns)
    # what is no entry goes to a column of its own, which is left out
    columns = torch.where(is_entry, columns.view(is_entry.shape), index.n_columns)
    alive = values.index_select(0, slots).view(is_entry.shape) * is_entry
    wide = values.new_zeros(len(ids), index.n_columns + 1).scatter(1, columns, alive)
    return wide[:, : index.n_columns].contiguous()
