"""A weight of which only the alive entries exist, compressed by rows."""

import warnings
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from recbole_dsl.private_torch import HAS_WRAPPERS, DisableTorchFunctionSubclass, not_traced
from recbole_dsl.sparse.compressed_rows import (
    CompressedRows,
    GradientSink,
    compress,
    new_offsets,
    row_blocks,
    true_at,
)
from recbole_dsl.sparse.lazy_table import LazyTable
from recbole_dsl.sparse.reading import Reader, spread
from recbole_dsl.sparse.rewrite import Change, rewrite
from recbole_dsl.sparse.slot_tensor import Topology, mark, unmarked
from recbole_dsl.sparse.validity import PARTS, topology_problem
from recbole_dsl.sparse.view import DenseView, compiler_is_at_work

# entries from which on the dense view is made only if something needs it
LAZY_FROM = 2**16


def _renamed(old: str, new: str) -> property:
    """The attribute at the dotted path ``new`` under its former name, with a warning."""
    *owners, name = new.split(".")

    def owner(weight: "SparseWeight") -> Any:
        warnings.warn(f"SparseWeight.{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
        return reduce(getattr, owners, weight)

    def read(weight: "SparseWeight") -> Any:
        return getattr(owner(weight), name)

    def write(weight: "SparseWeight", value: Any) -> None:
        setattr(owner(weight), name, value)

    return property(read, write)


class SparseWeight(nn.Module):
    """The alive entries of a weight of shape ``(rows, ...)``; everything else is zero and takes no memory.

    A weight of more than two dimensions is folded to ``(rows, columns)``. An entry's *position* is
    ``row * columns + column``; its *slot* is its index in ``values``. Slots are in order of position.

    Attributes:
        values: ``(nnz,)``, the only parameter, so that gradients and optimizer state exist for alive
            entries alone.
        index: which entries are alive; it shares memory with ``columns`` and ``row_offsets``.
        padding_row: a row that is empty and must stay so, or None. Only when every entry is alive it has its own,
            which look-ups do not train, as in an ``nn.Embedding``.
        awaits_data: whether it is to get another topology and other values once the training data is known;
            loading a state ends that.
        pretrained: how it is known that its entries are values that the dense weight was given, and no
            initialisation; None otherwise.
        reader: how `rows` and `dense` read it, and who collects gradients.
        topology: stands for which entries are alive; another object once that has changed.
        is_trained: whether a `DynamicTopology` updates it; averages do not change its topology then.
        is_replaced: whether `densify` put a dense parameter in its place, so that nothing reads it any more.
    """

    values: nn.Parameter
    brought = _renamed("brought", "pretrained")
    pending = _renamed("pending", "reader.pending")
    gradient_sink = _renamed("gradient_sink", "reader.gradient_sink")
    sparse_gradient = _renamed("sparse_gradient", "reader.sparse_gradient")

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
        self.awaits_data = self.is_trained = self.is_replaced = False
        self.pretrained: str | None = None
        self.reader = Reader(self.shape, padding_row)
        self.topology = Topology(self)
        counts, columns = new_offsets(self.n_rows, self.numel), []
        for (start, stop), block in zip(row_blocks(self.n_rows, self.n_columns), alive):
            positions = true_at(block.view(-1))
            counts[start + 1 : stop + 1], of_block = compress(positions, stop - start, self.n_columns)
            columns.append(of_block)
        # no buffers, since those are averaged and copied by themselves, apart from the values that they belong to
        joined = torch.cat(columns).to(device)
        del columns
        offsets = counts.cumsum_(0).to(new_offsets(0, len(joined)).dtype)
        self.index = CompressedRows(self.n_columns, joined, offsets.to(device))
        self.values = mark(nn.Parameter(torch.zeros(len(joined), dtype=dtype, device=device)), self)

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
    def columns(self) -> Tensor:
        """(nnz,), the column of each entry, in the smallest unsigned type that fits."""
        return self.index.columns

    @property
    def row_offsets(self) -> Tensor:
        """(rows + 1,), int32 (int64 from 2**31 entries on): where the slots of each row begin and end."""
        return self.index.row_offsets

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
        return self.columns.nbytes + self.row_offsets.nbytes

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, nnz={self.nnz}, density={self.density:.4g}"

    def __getstate__(self) -> dict:
        """Without what belongs to this very object: who watches its gradients, and what it keeps for speed."""
        self.settle()
        own = {
            "reader": Reader(self.shape, self.padding_row, self.reader.sparse_gradient),
            "index": replace(self.index, known={}),
            "topology": None,
            "is_trained": False,
        }
        return {**self.__dict__, **own}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.topology = Topology(self)
        mark(self.values, self)

    def _apply(self, fn, *args, **kwargs):
        if self.reader.pending is not None:
            self.reader.pending.end()
        super()._apply(fn, *args, **kwargs)
        # to another device they may have become others
        mark(self.values, self)
        # a device that is not to be waited for does not have to count the longest row again
        known = {name: one for name, one in self.index.known.items() if not isinstance(one, Tensor)}
        index = (fn(self.columns), fn(self.row_offsets))
        self.index = CompressedRows(self.n_columns, *index, known=known)
        return self

    def settle(self) -> None:
        """Let the optimizer do what it has still to do to ``values``."""
        if self.reader.pending is not None:
            self.reader.pending.settle()

    @not_traced
    def rows(self, ids: Tensor) -> Tensor:
        """Look up the dense rows ``ids`` (any shape, integer): ``(*ids.shape, *shape[1:])``, differentiable."""
        return self.reader.rows(self._matrix(), ids)

    @not_traced
    def dense(self) -> Tensor:
        """The whole weight as a new dense tensor of ``shape``, differentiable; see `dense_kept`."""
        return self.reader.dense(self._matrix())

    def dense_kept(self) -> AbstractContextManager[None]:
        """Within it, where no gradient is asked for, `dense` makes its tensor once; the weight must not change.

        `view` gives that tensor as it is: its protection takes longer than the product of one row with it.
        """
        return self.reader.dense_kept()

    def is_kept_as(self, dense: Tensor) -> bool:
        """Whether ``dense`` is the tensor that `dense_kept` keeps, or has its memory and shape."""
        kept = self.reader.kept
        return kept is not None and kept.data_ptr() == dense.data_ptr() and kept.shape == dense.shape

    def view(self) -> Tensor:
        """`dense` as a tensor that refuses to be written to, since the write would be lost.

        To ``isinstance`` it is an ``nn.Parameter``, which models ask for.
        """
        # a compiler traces plain tensors only
        if HAS_WRAPPERS and self._may_be_lazy() and not compiler_is_at_work():
            self.settle()
            sink = self.reader.gradient_sink if self.values.requires_grad else None
            return LazyTable.of(self._matrix(sink), lambda: self._protected(self.dense()), self.rows)
        dense = self.dense()
        return dense if dense is self.reader.kept or compiler_is_at_work() else self._protected(dense)

    def _matrix(self, sink: GradientSink | None = None) -> CompressedRows:
        index = self.index
        # each look-up makes one: `replace` takes several times as long
        return CompressedRows(
            self.n_columns, index.columns, index.row_offsets, self.values, sink, known=index.known
        )

    def _protected(self, dense: Tensor) -> DenseView:
        return DenseView.of(dense, self.values, lambda entries: spread(self.index, entries).view(self.shape))

    def _may_be_lazy(self) -> bool:
        """Whether the dense view is so large that it is better made only when something needs it."""
        is_matrix = len(self.shape) == 2 and self.nnz < self.numel
        return is_matrix and self.numel >= LAZY_FROM and torch.is_grad_enabled()

    def positions(self) -> Tensor:
        """(nnz,) int64: the position of every alive entry, ascending."""
        return self.index.positions()

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
        moments = [
            (state, name)
            for state in states
            for name, old in state.items()
            if isinstance(old, Tensor) and old.shape == self.values.shape
        ]
        for state, name in moments:
            state[name] = unmarked(state[name])
        tensors = [self.values.detach(), *(state[name] for state, name in moments)]
        new = rewrite(self.index, change, nnz, tensors)
        if nnz == self.nnz:
            gradient = self.values.grad
            if gradient is not None and gradient.is_sparse:
                self.values.grad = None
            elif gradient is not None:
                gradient.zero_()
        else:
            self._resize(new.entries[0])
            for (state, name), moved in zip(moments, new.entries[1:]):
                state[name] = moved
        self._set_index(new.columns, new.row_offsets)

    def _resize(self, values: Tensor) -> None:
        self.values.grad = None
        # the last step's loss may still be alive, and with it a gradient accumulator of the old size, which
        # the next step would use; a change of type makes PyTorch drop it
        other = torch.float32 if values.dtype == torch.float64 else torch.float64
        self.values.data = values.new_empty(0, dtype=other)
        self.values.data = values

    def _set_index(self, columns: Tensor, row_offsets: Tensor) -> None:
        new = []
        for old, tensor in ((self.columns, columns), (self.row_offsets, row_offsets)):
            in_place = old.shape == tensor.shape and old.dtype == tensor.dtype
            new.append(old.copy_(tensor) if in_place else tensor)
        self.index = CompressedRows(self.n_columns, *new)
        self.topology = Topology(self)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("columns", "row_offsets"):
            destination[prefix + name] = getattr(self, name).detach()

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        """Take any topology of this shape, whatever its nnz; refuse one that is not a topology."""
        self.settle()
        new = [state_dict.get(prefix + part) for part in PARTS]
        if all(isinstance(t, Tensor) for t in new):
            problem = topology_problem(self.n_rows, self.n_columns, self.padding_row, *new)
            if problem:
                errors.append(f"{prefix[:-1]}: {problem}")
                return
            values, columns, row_offsets = (t.to(self.values.device) for t in new)
            if values.shape != self.values.shape:
                self._resize(self.values.detach().new_empty(values.shape))
            self.index = CompressedRows(self.n_columns, columns.clone(), row_offsets.clone())
            self.topology = Topology(self)
            self.awaits_data, self.pretrained = False, None
        # whatever the topology of the new values was, it is that of this weight now, which takes a copy of them
        metadata = {**metadata, "assign_to_params_buffers": False}
        with DisableTorchFunctionSubclass():
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        index = [prefix + name for name in ("columns", "row_offsets")]
        if strict:
            missing += [key for key in index if key not in state_dict]
            unexpected[:] = [key for key in unexpected if key not in index]
