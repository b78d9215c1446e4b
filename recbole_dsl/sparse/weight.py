"""A weight of which only the alive entries exist, compressed by rows."""

from collections.abc import Iterable, MutableMapping
from typing import Callable, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_dsl.sparse.view import DenseView

GradientSink = Callable[[Optional[Tensor], Tensor], None]


class SparseWeight(nn.Module):
    """The alive entries of a weight of shape ``(rows, ...)``; everything else is zero and takes no memory.

    A weight of more than two dimensions is folded to ``(rows, columns)``. An entry's *position* is
    ``row * columns + column``; its *slot* is its index in ``values``. Slots are in order of position.

    Attributes:
        values: ``(nnz,)``, the only parameter, so that gradients and optimizer state exist for alive
            entries alone.
        columns: ``(nnz,)``, the column of each entry, in the smallest unsigned type that fits.
        row_offsets: ``(rows + 1,)``, int32 (int64 from 2**31 entries on): row ``i`` owns the slots
            ``row_offsets[i]`` to ``row_offsets[i + 1]``.
        padding_row: a row that is empty and must stay so, or None. Only when every entry is alive it has its own,
            which look-ups do not train, as in an ``nn.Embedding``.
        gradient_sink: if set, called in the backward pass as ``gradient_sink(ids, gradient)`` with the
            gradient of the dense rows that were read, alive or not: ``ids`` (n,) and ``gradient``
            (n, columns), or None and (rows, columns) after `dense`.
    """

    values: nn.Parameter
    columns: Tensor
    row_offsets: Tensor

    def __init__(self, dense: Tensor, positions: Tensor, padding_row: Optional[int] = None):
        """Keep the entries of ``dense`` at ``positions`` (nnz,), int64, distinct and in ascending order."""
        super().__init__()
        self.shape = torch.Size(dense.shape)
        self.n_rows = self.shape[0]
        self.n_columns = self.shape[1:].numel()
        self.padding_row = padding_row
        self.gradient_sink: Optional[GradientSink] = None
        self.values = nn.Parameter(dense.detach().reshape(-1)[positions])
        self._set_topology(positions)

    @property
    def nnz(self) -> int:
        """Number of alive entries."""
        return self.values.numel()

    @property
    def numel(self) -> int:
        """Number of entries the dense weight would have."""
        return self.n_rows * self.n_columns

    @property
    def capacity(self) -> int:
        """Number of entries that may be alive: all but those of the padding row."""
        return self.numel - (0 if self.padding_row is None else self.n_columns)

    @property
    def density(self) -> float:
        return self.nnz / self.numel

    @property
    def index_bytes(self) -> int:
        """Bytes of ``columns`` and ``row_offsets``."""
        return sum(t.numel() * t.element_size() for t in (self.columns, self.row_offsets))

    def rows(self, ids: Tensor) -> Tensor:
        """Look up the dense rows ``ids`` (any shape, integer): ``(*ids.shape, *shape[1:])``, differentiable."""
        flat = ids.reshape(-1).long()
        if len(flat) >= self.n_rows:
            # the result is no smaller than the weight: copy rows from a dense one instead of making each anew
            whole = self.dense().view(self.n_rows, self.n_columns)
            out = F.embedding(flat, whole, padding_idx=self.padding_row)
        else:
            out = self._few_rows(flat)
        return out.view(*ids.shape, *self.shape[1:])

    def dense(self) -> Tensor:
        """The whole weight as a new dense tensor of ``shape``, differentiable; it is not kept."""
        out = self.values.new_zeros(self.numel).index_copy(0, self.positions(), self.values)
        out = out.view(self.n_rows, self.n_columns)
        self._watch(out, None)
        return out.view(self.shape)

    def view(self) -> DenseView:
        """`dense` as a tensor that refuses to be written to, since the write would be lost.

        To ``isinstance`` it is an ``nn.Parameter``, which models ask for.
        """
        view = self.dense().as_subclass(DenseView)
        view._is_param = True
        return view

    def row_of_slots(self) -> Tensor:
        """(nnz,) int64: the row of every alive entry, ascending."""
        return torch.repeat_interleave(self.row_offsets.long().diff(), output_size=self.nnz)

    def positions(self) -> Tensor:
        """(nnz,) int64: the position of every alive entry, ascending."""
        return self.row_of_slots() * self.n_columns + self.columns.long()

    def alive_in(self, start: int, stop: int) -> Tensor:
        """Mark the alive entries of the rows from ``start`` to ``stop``: (stop - start, columns), bool."""
        offsets = self.row_offsets[start : stop + 1].long()
        row = torch.repeat_interleave(offsets.diff())
        columns = self.columns[int(offsets[0]) : int(offsets[-1])].long()
        alive = torch.zeros(stop - start, self.n_columns, dtype=torch.bool, device=self.values.device)
        alive[row, columns] = True
        return alive

    @torch.no_grad()
    def exchange(self, pruned: Tensor, grown: Tensor, states: Iterable[MutableMapping] = ()) -> None:
        """Remove the slots ``pruned`` and add zero entries at the positions ``grown``.

        Every tensor in ``states`` (the optimizer's state of ``values``) that is shaped like ``values``
        is re-ordered in the same way and is zero at grown slots; so is the gradient. With as many
        pruned as grown, all of it happens in place.

        Args:
            pruned: (p,) int64 slots, distinct.
            grown: (g,) int64 positions, distinct, ascending, none of them alive or in the padding row.
            states: dictionaries, changed in place.
        """
        keep = torch.ones(self.nnz, dtype=torch.bool, device=self.values.device)
        keep[pruned] = False
        kept = self.positions()[keep]
        kept_slots = torch.arange(len(kept), device=kept.device) + torch.searchsorted(grown, kept)
        grown_slots = torch.arange(len(grown), device=kept.device) + torch.searchsorted(kept, grown)
        positions = kept.new_empty(len(kept) + len(grown))
        positions[kept_slots] = kept
        positions[grown_slots] = grown

        def moved(old: Tensor) -> Tensor:
            return old.new_zeros(len(positions)).index_copy_(0, kept_slots, old[keep])

        shape, same_size = self.values.shape, len(positions) == self.nnz
        for state in states:
            for name, old in state.items():
                if isinstance(old, Tensor) and old.shape == shape:
                    if same_size:
                        old.copy_(moved(old))
                    else:
                        state[name] = moved(old)
        if same_size:
            self.values.copy_(moved(self.values))
            if self.values.grad is not None:
                self.values.grad.zero_()
        else:
            self._resize(moved(self.values.detach()))
        self._set_topology(positions)

    def problem(self, values: Tensor, columns: Tensor, row_offsets: Tensor) -> Optional[str]:
        """What keeps the three tensors from being a topology of this shape, or None."""
        if values.dim() != 1 or columns.shape != values.shape:
            return f"{tuple(values.shape)} values and {tuple(columns.shape)} columns do not belong together"
        if row_offsets.shape != (self.n_rows + 1,):
            return f"the file has {row_offsets.numel() - 1} rows, the model {self.n_rows}"
        offsets, columns = row_offsets.long(), columns.long()
        counts = offsets.diff()
        if offsets[0] != 0 or offsets[-1] != len(values) or (counts < 0).any():
            return "row_offsets do not divide the values into rows"
        if len(columns) and (columns.min() < 0 or columns.max() >= self.n_columns):
            return f"columns are outside 0..{self.n_columns - 1}"
        positions = torch.repeat_interleave(counts) * self.n_columns + columns
        if (positions.diff() <= 0).any():
            return "columns do not ascend within each row"
        if self.padding_row is not None and len(values) < self.numel and counts[self.padding_row] != 0:
            return f"the padding row {self.padding_row} has entries"
        return None

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, nnz={self.nnz}, density={self.density:.4g}"

    def _few_rows(self, flat: Tensor) -> Tensor:
        starts = self.row_offsets.index_select(0, flat).long()
        counts = self.row_offsets.index_select(0, flat + 1).long() - starts
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(flat) else 0
        row = torch.repeat_interleave(counts, output_size=total)
        slots = torch.arange(total, device=flat.device) + (starts - ends + counts)[row]
        targets = row * self.n_columns + self._columns_of(slots)
        alive = self.values.index_select(0, slots)
        if self.padding_row is not None and self.nnz == self.numel:
            alive = torch.where((flat == self.padding_row)[row], alive.detach(), alive)
        out = self.values.new_zeros(len(flat) * self.n_columns).index_copy(0, targets, alive)
        out = out.view(len(flat), self.n_columns)
        self._watch(out, flat)
        return out

    def _columns_of(self, slots: Tensor) -> Tensor:
        # few of PyTorch's kernels know the unsigned types; these bits are gathered as signed ones
        signed = self.columns.view(_SIGNED[self.columns.dtype])
        return signed.index_select(0, slots).long() & _ALL_BITS[self.columns.dtype]

    def _watch(self, out: Tensor, ids: Optional[Tensor]) -> None:
        sink = self.gradient_sink
        if sink is not None and out.requires_grad:
            out.register_hook(lambda gradient: sink(ids, gradient))

    def _resize(self, values: Tensor) -> None:
        self.values.grad = None
        # the last step's loss may still be alive, and with it a gradient accumulator of the old size, which
        # the next step would use; a change of type makes PyTorch drop it
        other = torch.float32 if values.dtype == torch.float64 else torch.float64
        self.values.data = values.new_empty(0, dtype=other)
        self.values.data = values

    def _set_topology(self, positions: Tensor) -> None:
        rows = torch.div(positions, self.n_columns, rounding_mode="floor")
        offsets = torch.zeros(self.n_rows + 1, dtype=torch.long, device=positions.device)
        offsets[1:] = torch.bincount(rows, minlength=self.n_rows).cumsum(0)
        new = {
            "columns": (positions - rows * self.n_columns).to(smallest_unsigned(self.n_columns)),
            "row_offsets": offsets.to(torch.int32 if len(positions) < 2**31 else torch.long),
        }
        for name, tensor in new.items():
            old = self._buffers.get(name)
            if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
                old.copy_(tensor)
            else:
                self.register_buffer(name, tensor)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        """Take any topology of this shape, whatever its nnz; refuse one that is not a topology."""
        new = [state_dict.get(prefix + name) for name in ("values", "columns", "row_offsets")]
        if all(isinstance(t, Tensor) for t in new):
            problem = self.problem(*new)
            if problem:
                errors.append(f"{prefix[:-1]}: {problem}")
                return
            values, columns, row_offsets = (t.to(self.values.device) for t in new)
            if values.shape != self.values.shape:
                self._resize(self.values.detach().new_empty(values.shape))
            self.columns, self.row_offsets = columns.clone(), row_offsets.clone()
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)


_SIGNED = {
    torch.uint8: torch.int8,
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.int64: torch.int64,
}
_ALL_BITS = {torch.uint8: 2**8 - 1, torch.uint16: 2**16 - 1, torch.uint32: 2**32 - 1, torch.int64: -1}


def smallest_unsigned(n: int) -> torch.dtype:
    """The smallest unsigned integer type that holds ``0 .. n - 1``."""
    for bits, dtype in ((8, torch.uint8), (16, torch.uint16), (32, torch.uint32)):
        if n <= 2**bits:
            return dtype
    return torch.int64
