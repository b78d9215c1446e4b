"""Writing the entries of a sparse weight anew, in place, when other ones become alive."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from recbole_dsl.sparse.compressed_rows import CompressedRows, compress, new_offsets, true_at

# of a block's number and the positions of its alive entries: which of its positions are alive then, bool
Change = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Rewritten:
    """The new topology, and the entries of each tensor in its order."""

    columns: Tensor
    row_offsets: Tensor
    entries: list[Tensor]


def rewrite(index: CompressedRows, change: Change, nnz: int, tensors: list[Tensor]) -> Rewritten:
    """Order the entries of ``tensors``, each (nnz,), by what is alive then; new ones are zero.

    With as many entries as before the columns and ``tensors`` are written in place: an entry waits until what
    was at its new slot has been read.

    Args:
        change: as in `SparseWeight.exchange`.
        nnz: how many are alive in all.
    """
    old = [index.columns, *tensors]
    in_place = nnz == len(index.columns)
    new = old if in_place else [t.new_empty(nnz) for t in old]
    offsets = new_offsets(index.n_rows, nnz, index.columns.device)
    waiting: deque[list[Tensor]] = deque()
    written = 0
    for number, (start, stop, first, last) in enumerate(index.blocks()):
        before = index.positions_in(start, stop, first, last)
        alive = change(number, before)
        after = true_at(alive)
        offsets[start + 1 : stop + 1], columns = compress(after, stop - start, index.n_columns)
        chunk = [columns]
        chunk += [_moved(tensor[first:last], before, after, len(alive)) for tensor in tensors]
        waiting.append(chunk)
        while waiting and written + len(waiting[0][0]) <= (last if in_place else nnz):
            written = _write(new, waiting.popleft(), written)
    while waiting:
        written = _write(new, waiting.popleft(), written)
    return Rewritten(new[0], offsets.cumsum_(0), new[1:])


def _moved(entries: Tensor, before: Tensor, after: Tensor, size: int) -> Tensor:
    """Entries at the positions ``before`` of ``size``, read at the positions ``after``."""
    return entries.new_zeros(size).index_copy_(0, before, entries).index_select(0, after)


def _write(tensors: list[Tensor], chunk: list[Tensor], start: int) -> int:
    stop = start + len(chunk[0])
    for tensor, part in zip(tensors, chunk):
        tensor[start:stop] = part
    return stop
