"""A weight of which only the alive entries exist, compressed by rows."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_dsl.private_torch import HAS_WRAPPERS, DisableTorchFunctionSubclass, not_traced
from recbole_dsl.sparse.compressed_rows import CompressedRows, compress, new_offsets, row_blocks, true_at
from recbole_dsl.sparse.gather import all_bits, gather, signed_view, spread_out
from recbole_dsl.sparse.lazy_table import LazyTable
from recbole_dsl.sparse.padded_rows import padded_rows
from recbole_dsl.sparse.rewrite import Change, Rewritten, rewrite
from recbole_dsl.sparse.slots import Topology, mark, unmarked
from recbole_dsl.sparse.softmax.table import Table
from recbole_dsl.sparse.validity import topology_problem
from recbole_dsl.sparse.view import DenseView, compiler_is_at_work

# entries of which the positions are kept, being small, to make the dense form faster
_FEW = 2**17
# entries from which on a gradient takes long to make
_MANY = 2**20
# entries from which on the dense view is made only if something needs it
LAZY_FROM = 2**16
# entries of a dense form that is made for a few of its rows, being small, where it is used many times
_SMALL = 2**24

GradientSink = Callable[[Tensor | None, Tensor], None]


class Pending(Protocol):
    """What an optimizer has still to do to the values of a weight, which are stored as it needs them."""

    def current(self, slots: Tensor) -> Tensor:
        """What the values at ``slots`` (n,) would be: (n,)."""

    def has_taken(self, gradient: Tensor) -> bool:
        """Whether a step has been taken with ``gradient``."""

    def settle(self) -> None:
        """Do it, in place."""

    def end(self) -> None:
        """Do it, and leave no more to be done."""


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
        awaits_data: whether it is to get another topology and other values once the training data is known;
            loading a state ends that.
        brought: how it is known that its entries are values that the dense weight was given, and no
            initialisation; None otherwise.
        sparse_gradient: whether `rows` gives ``values`` a gradient in sparse COO layout, for optimizers that
            touch what has one only.
        pending: what an optimizer has still to do to ``values``. It is done before anything but `rows` reads them.
        gradient_sink: if set, called in the backward pass as ``gradient_sink(ids, gradient)`` with the
            gradient of the dense rows that were read, alive or not: ``ids`` (n,) and ``gradient`` (n, columns), or
            None and (rows, columns) after `dense`.
        topology: stands for which entries are alive, and is another one when that has changed.
        is_trained: whether a `DynamicTopology` updates it; averages do not change its topology then.
        is_replaced: whether `densify` put a dense parameter in its place, so that nothing reads it any more.
    """

    values: nn.Parameter
    columns: Tensor
    row_offsets: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        alive: Iterable[Tensor],
        padding_row: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ):
        """Zeros, alive where ``alive`` says so: for each of `row_blocks` a bool tensor (stop - start, columns)."""
        super().__init__()
        self.shape = torch.Size(shape)
        self.n_rows = self.shape[0]
        self.n_columns = self.shape[1:].numel()
        self.padding_row = padding_row
        self.awaits_data = False
        self.brought: str | None = None
        self.sparse_gradient = False
        self.is_replaced = False
        self.is_trained = False
        self.topology = Topology(self)
        self.gradient_sink: GradientSink | None = None
        self.pending: Pending | None = None
        self._keeps_dense, self._kept = False, None
        self._kept_positions: Tensor | None = None
        self._longest_row: int | None = None
        self._hooked: int | None = None
        counts, columns = new_offsets(self.n_rows, self.numel), []
        for (start, stop), block in zip(row_blocks(self.n_rows, self.n_columns), alive):
            positions = true_at(block.view(-1))
            counts[start + 1 : stop + 1], of_block = compress(positions, stop - start, self.n_columns)
            columns.append(of_block)
        # no buffers, since those are averaged and copied by themselves, apart from the values that they belong to
        self.columns = torch.cat(columns).to(device)
        del columns
        offsets = counts.cumsum_(0).to(new_offsets(0, len(self.columns)).dtype)
        self.row_offsets = offsets.to(device)
        self.values = mark(nn.Parameter(torch.zeros(len(self.columns), dtype=dtype, device=device)), self)

    @classmethod
    def of(cls, dense: Tensor, positions: Tensor, padding_row: int | None = None) -> "SparseWeight":
        """The entries of ``dense`` at ``positions`` (nnz,), int64, distinct and in ascending order."""
        mask = torch.zeros(dense.shape[0], dense.shape[1:].numel(), dtype=torch.bool)
        mask.view(-1)[positions.cpu()] = True
        blocks = (mask[start:stop] for start, stop in row_blocks(*mask.shape))
        weight = cls(dense.shape, blocks, padding_row, dense.dtype, dense.device)
        weight.take(dense)
        return weight

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

    @property
    def index(self) -> CompressedRows:
        """Which entries are alive; it shares memory with `columns` and `row_offsets`."""
        return CompressedRows(self.n_columns, self.columns, self.row_offsets)

    def __getstate__(self) -> dict:
        """Without what belongs to this very object: who watches its gradients, and what it keeps for speed."""
        self.settle()
        own = {
            "gradient_sink": None,
            "pending": None,
            "_keeps_dense": False,
            "_kept": None,
            "_kept_positions": None,
            "_hooked": None,
        }
        return {**self.__dict__, **own, "topology": None, "is_trained": False}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.topology = Topology(self)
        mark(self.values, self)

    def _apply(self, fn, *args, **kwargs):
        if self.pending is not None:
            self.pending.end()
        super()._apply(fn, *args, **kwargs)
        # to another device they may have become others
        mark(self.values, self)
        self.columns, self.row_offsets = fn(self.columns), fn(self.row_offsets)
        self._kept_positions = None
        return self

    def settle(self) -> None:
        """Let the optimizer do what it has still to do to ``values``."""
        if self.pending is not None:
            self.pending.settle()

    @not_traced
    def rows(self, ids: Tensor) -> Tensor:
        """Look up the dense rows ``ids`` (any shape, integer): ``(*ids.shape, *shape[1:])``, differentiable."""
        if self._kept is not None and not torch.is_grad_enabled():
            return self._kept[ids] if self._kept.dim() > 2 else F.embedding(ids, self._kept)
        flat = ids.reshape(-1).long()
        if self.nnz == self.numel:
            whole = self.values.view(self.n_rows, self.n_columns)
            self._watch(whole, None)
            out = F.embedding(flat, whole, padding_idx=self.padding_row)
        elif self.sparse_gradient:
            distinct, place = flat.unique(return_inverse=True)
            out = F.embedding(place, self._few_rows(distinct))
        elif 2 * len(flat) >= self.n_rows or (self._keeps_dense and self.numel <= _SMALL):
            # the result is hardly smaller than the weight: copy rows from a dense one instead of making each anew
            out = F.embedding(flat, self.dense().view(self.n_rows, self.n_columns))
        elif self.pending is not None and torch.is_grad_enabled():
            distinct, place = flat.unique(return_inverse=True)
            out = F.embedding(place, self._few_rows(distinct))
        else:
            out = self._few_rows(flat)
        return out.view(*ids.shape, *self.shape[1:])

    @not_traced
    def dense(self) -> Tensor:
        """The whole weight as a new dense tensor of ``shape``, differentiable; it is not kept."""
        if self._kept is not None and not torch.is_grad_enabled():
            return self._kept
        out = self._spread(self.values).view(self.n_rows, self.n_columns)
        self._watch(out, None)
        out = out.view(self.shape)
        if self._keeps_dense and not torch.is_grad_enabled():
            self._kept = out
            self._kept._is_param = True
        return out

    def _spread(self, entries: Tensor) -> Tensor:
        """A new dense tensor of ``shape`` with ``entries`` (nnz,) where the weight's are alive."""
        if self.nnz == self.numel:
            return entries.clone().view(self.shape)
        return entries.new_zeros(self.numel).index_copy_(0, self.positions(), entries).view(self.shape)

    @contextmanager
    def dense_kept(self) -> Iterator[None]:
        """Within it, where no gradient is asked for, `dense` makes its tensor once; the weight must not change.

        `view` gives that tensor as it is: its protection takes longer than the product of one row with it.
        """
        self._keeps_dense = True
        try:
            yield
        finally:
            self._keeps_dense, self._kept = False, None

    def is_kept_as(self, dense: Tensor) -> bool:
        """Whether ``dense`` is the tensor that `dense_kept` keeps, or has its memory and shape."""
        kept = self._kept
        return kept is not None and kept.data_ptr() == dense.data_ptr() and kept.shape == dense.shape

    def view(self) -> Tensor:
        """`dense` as a tensor that refuses to be written to, since the write would be lost.

        To ``isinstance`` it is an ``nn.Parameter``, which models ask for.
        """
        # a compiler traces plain tensors only
        if HAS_WRAPPERS and self._is_large() and not compiler_is_at_work():
            self.settle()
            sink = self.gradient_sink if self.values.requires_grad else None
            table = Table(self.values, self.columns, self.row_offsets, self.n_columns, sink)
            return LazyTable.of(table, lambda: DenseView.of(self.dense(), self.values, self._spread), self.rows)
        dense = self.dense()
        if dense is self._kept or compiler_is_at_work():
            return dense
        return DenseView.of(dense, self.values, self._spread)

    def _is_large(self) -> bool:
        """Whether it is worth to wait whether the dense view is needed, for what trains it."""
        is_matrix = len(self.shape) == 2 and self.nnz < self.numel
        return is_matrix and self.numel >= LAZY_FROM and torch.is_grad_enabled()

    def row_of_slots(self) -> Tensor:
        """(nnz,) int64: the row of every alive entry, ascending."""
        return torch.repeat_interleave(self.row_offsets.long().diff(), output_size=self.nnz)

    def positions(self) -> Tensor:
        """(nnz,) int64: the position of every alive entry, ascending."""
        kept = self._kept_positions
        if kept is None or kept.device != self.columns.device:
            kept = self.row_of_slots() * self.n_columns + self.columns.long()
            self._kept_positions = kept if len(kept) <= _FEW else None
        return kept

    def row_blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """`CompressedRows.blocks`: first row, end row, first slot, end slot."""
        return self.index.blocks()

    def positions_in(self, start: int, stop: int, first: int, last: int) -> Tensor:
        """`CompressedRows.positions_in`: (last - first,) int64, ascending."""
        return self.index.positions_in(start, stop, first, last)

    def alive_in(self, start: int, stop: int) -> Tensor:
        """Mark the alive entries of the rows from ``start`` to ``stop``: (stop - start, columns), bool."""
        first, last = self.row_offsets[[start, stop]].tolist()
        alive = torch.zeros(stop - start, self.n_columns, dtype=torch.bool, device=self.values.device)
        alive.view(-1)[self.positions_in(start, stop, first, last)] = True
        return alive

    @torch.no_grad()
    def take(self, dense: Tensor) -> None:
        """Set the alive entries to those of ``dense``, a tensor of ``shape``."""
        folded = dense.detach().reshape(self.n_rows, self.n_columns)
        for start, stop, first, last in self.row_blocks():
            positions = self.positions_in(start, stop, first, last)
            self.values[first:last] = folded[start:stop].reshape(-1)[positions]

    @torch.no_grad()
    def exchange(self, change: Change, nnz: int, states: Iterable[MutableMapping] = ()) -> None:
        """Change which entries are alive; the new ones are zero.

        Every tensor in ``states`` (the optimizer's state of ``values``) that is shaped like ``values``
        is re-ordered in the same way and is zero at new slots; the gradient is zero. While ``nnz`` stays,
        all of it happens in place, with the memory of a few blocks of rows.

        Args:
            change: called for each of `row_blocks`, in order, as ``change(number, positions)`` with the number of
                the block and the positions in it of its alive entries, (n,) int64, ascending; returns the slots of
                those that go, counted from the block's first, and the positions in it of those that come, which
                are not alive, each (m,) int64, ascending.
            nnz: how many there are in all.
            states: dictionaries, changed in place.
        """
        places: list[tuple[MutableMapping, str]] = []
        for state in states:
            places += [
                (state, name)
                for name, old in state.items()
                if isinstance(old, Tensor) and old.shape == self.values.shape
            ]
        for state, name in places:
            state[name] = unmarked(state[name])
        new = rewrite(self.index, change, nnz, [self.values.detach(), *(state[name] for state, name in places)])
        if nnz == self.nnz:
            gradient = self.values.grad
            if gradient is not None and gradient.is_sparse:
                self.values.grad = None
            elif gradient is not None:
                gradient.zero_()
        else:
            self._resize(new.entries[0])
            for (state, name), moved in zip(places, new.entries[1:]):
                state[name] = moved
        self._set_topology(new)

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, nnz={self.nnz}, density={self.density:.4g}"

    def entries_of(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The alive entries of the rows ``ids`` (n,): each one's place in ``ids``, slot and column, int64."""
        starts, ends = self.row_offsets.unfold(0, 2, 1).index_select(0, ids).long().unbind(1)
        counts = ends - starts
        ends = counts.cumsum(0)
        total = int(ends[-1]) if len(ids) else 0
        place = torch.repeat_interleave(counts, output_size=total)
        slots = torch.arange(total, device=ids.device) + (starts - ends + counts).index_select(0, place)
        # few of PyTorch's kernels know the unsigned types; these bits are gathered as signed ones
        columns = signed_view(self.columns).index_select(0, slots).long() & all_bits(self.columns)
        return place, slots, columns

    @property
    def longest_row(self) -> int:
        """The most alive entries that a row has."""
        if self._longest_row is None:
            self._longest_row = int(self.row_offsets.diff().max()) if self.n_rows else 0
        return self._longest_row

    def _few_rows(self, ids: Tensor) -> Tensor:
        """The dense rows ``ids`` (n,): (n, columns); for a sparse gradient they must be distinct and ascending."""
        if not (ids.is_cpu or self.sparse_gradient):
            out = padded_rows(self.index, self.values, ids, self.longest_row)
            self._watch(out, ids)
            return out
        place, slots, columns = self.entries_of(ids)
        if self.pending is not None:
            alive = gather(self.values, slots, True, self.pending.current(slots))
        else:
            alive = gather(self.values, slots, self.sparse_gradient or self._adds_up_sparse_gradients())
        targets = place * self.n_columns + columns
        out = self.values.new_zeros(len(ids) * self.n_columns).index_copy_(0, targets, alive)
        out = out.view(len(ids), self.n_columns)
        self._watch(out, ids)
        return out

    def _adds_up_sparse_gradients(self) -> bool:
        """Whether the gradients of all look-ups are to become one dense tensor, instead of one each."""
        if self.nnz < _MANY or not self.values.requires_grad:
            return False
        # a copy of this weight has the hook of its values no more
        if self._hooked != id(self.values):
            self.values.register_post_accumulate_grad_hook(self._spread_gradient_out)
            self._hooked = id(self.values)
        return True

    def _spread_gradient_out(self, values: Tensor) -> None:
        if not self.sparse_gradient and self.pending is None:
            values.grad = spread_out(values.grad)

    def _watch(self, out: Tensor, ids: Tensor | None) -> None:
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

    def _set_topology(self, new: Rewritten) -> None:
        self._kept_positions = self._longest_row = None
        self.topology = Topology(self)
        for name, tensor in (("columns", new.columns), ("row_offsets", new.row_offsets)):
            old = getattr(self, name)
            if old.shape == tensor.shape and old.dtype == tensor.dtype:
                old.copy_(tensor)
            else:
                setattr(self, name, tensor)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("columns", "row_offsets"):
            destination[prefix + name] = getattr(self, name).detach()

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        """Take any topology of this shape, whatever its nnz; refuse one that is not a topology."""
        self.settle()
        new = [state_dict.get(prefix + name) for name in ("values", "columns", "row_offsets")]
        if all(isinstance(t, Tensor) for t in new):
            problem = topology_problem(self.n_rows, self.n_columns, self.padding_row, *new)
            if problem:
                errors.append(f"{prefix[:-1]}: {problem}")
                return
            values, columns, row_offsets = (t.to(self.values.device) for t in new)
            if values.shape != self.values.shape:
                self._resize(self.values.detach().new_empty(values.shape))
            self.columns, self.row_offsets = columns.clone(), row_offsets.clone()
            self.awaits_data, self.brought = False, None
            self._kept_positions = self._longest_row = None
            self.topology = Topology(self)
        # whatever the topology of the new values was, it is that of this weight now, which takes a copy of them
        metadata = {**metadata, "assign_to_params_buffers": False}
        with DisableTorchFunctionSubclass():
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        index = [prefix + name for name in ("columns", "row_offsets")]
        if strict:
            missing += [key for key in index if key not in state_dict]
            unexpected[:] = [key for key in unexpected if key not in index]
