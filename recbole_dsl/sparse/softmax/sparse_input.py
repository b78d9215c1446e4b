"""The product of mostly zero inputs, such as the items of users, with a sparse layer."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.sparse.compressed_rows import CompressedRows, as_int64, signed_view, true_at, weighted_sums

# share of non-zero entries up to which an input is mostly zero
_FEW = 0.02


def is_mostly_zero(inputs: Tensor) -> bool:
    """Whether `times_transposed` is to be used on ``inputs``, which must not need a gradient for it."""
    if inputs.requires_grad or inputs.dim() != 2 or not inputs.is_floating_point():
        return False
    return int(inputs.count_nonzero()) <= _FEW * inputs.numel()


def times_transposed(inputs: Tensor, table: CompressedRows) -> Tensor:
    """``inputs`` (n, columns), mostly zero, times ``table`` (rows, columns) transposed: (n, rows).

    Of the table only the columns where some input is not zero take part. It is differentiable in the values of
    ``table``; the dense gradient is made for its sink alone, a block of rows at a time.
    """
    samples, columns = inputs.nonzero().unbind(1)
    return _SparseInput.apply(table.values, table, len(inputs), samples, columns, inputs[samples, columns])


class _SparseInput(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, values: Tensor, table: CompressedRows, n: int, samples: Tensor, columns: Tensor, inputs: Tensor
    ):
        used, places = columns.unique(return_inverse=True)
        slots, at = _entries_in(table, used)
        # the rows of the used columns: (used, rows)
        transposed = values.new_zeros(len(used) * table.n_rows).index_copy_(0, at, values[slots])
        starts = torch.searchsorted(samples, torch.arange(n + 1, device=samples.device))
        out = weighted_sums(places, transposed.view(len(used), table.n_rows), starts, inputs)
        ctx.save_for_backward(samples, inputs, used, places, slots, at)
        ctx.table = table
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        samples, inputs, used, places, slots, at = ctx.saved_tensors
        table: CompressedRows = ctx.table
        order = places.argsort(stable=True)
        starts = F.pad(torch.bincount(places, minlength=len(used)).cumsum(0), (1, 0))
        of_transposed = weighted_sums(samples[order], gradient.contiguous(), starts, inputs[order])
        of_values = torch.zeros_like(table.values).detach().index_copy_(0, slots, of_transposed.view(-1)[at])
        for start, stop, _, _ in table.blocks() if table.sink is not None else ():
            of_rows = of_transposed.new_zeros(stop - start, table.n_columns)
            of_rows[:, used] = of_transposed[:, start:stop].t()
            table.sink(torch.arange(start, stop, device=used.device) + table.first_row, of_rows)
        return of_values, None, None, None, None, None


def _entries_in(table: CompressedRows, used: Tensor) -> tuple[Tensor, Tensor]:
    """The slots of the entries in the columns ``used``, ascending, and where each is in (used, rows), int64."""
    place = torch.full((table.n_columns,), -1, dtype=torch.int32, device=used.device)
    place[used] = torch.arange(len(used), dtype=torch.int32, device=used.device)
    slots, at = [], []
    for start, stop, first, last in table.blocks():
        narrow = signed_view(table.columns[first:last])
        columns = narrow if narrow.dtype == torch.int32 else as_int64(table.columns[first:last])
        of_block = place.index_select(0, columns)
        within = true_at(of_block >= 0)
        rows = torch.repeat_interleave(table.row_offsets[start : stop + 1].long().diff(), output_size=last - first)
        slots.append(within + first)
        at.append(of_block[within].long() * table.n_rows + rows[within] + start)
    return torch.cat(slots), torch.cat(at)
