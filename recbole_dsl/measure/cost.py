"""What a sparse model costs and what it would cost dense, measured on the tensors that exist."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from recbole_dsl.errors import described
from recbole_dsl.measure.flops import flops_of_one
from recbole_dsl.sparse.modules import sparse_weights


@dataclass(frozen=True)
class CostRow:
    """A quantity of the dense and of the sparse model, None if not measured."""

    name: str
    dense: int | None
    sparse: int | None
    is_bytes: bool = False

    @property
    def share(self) -> float | None:
        """Sparse / dense."""
        return self.sparse / self.dense if self.dense and self.sparse is not None else None

    @property
    def shown(self) -> tuple[str, str, str]:
        """The dense and the sparse quantity and their ratio, as text."""
        share = "-" if self.share is None else f"{self.share:.4f}"
        return _readable(self.dense, self.is_bytes), _readable(self.sparse, self.is_bytes), share

    def __str__(self) -> str:
        return f"{self.name:<31}" + "".join(f"{text:>16}" for text in self.shown)


@dataclass(frozen=True)
class Cost:
    """The cost of a model; ``print(cost)`` shows the table.

    Attributes:
        sparse_tensors: weights of the sparse tensors, alive ones only in the sparse column.
        dense_tensors: weights of the tensors that stay dense.
        weights: the two together.
        bytes: bytes of the weights and of the indices that locate them.
        record_bytes: bytes of the record of what was ever alive, for the exploration rate.
        optimizer_bytes: bytes of the optimizer's state.
        flops: operations to score one interaction, the mean over a sample.
        checkpoint_bytes: size of the checkpoint file.
        growth_bytes: the most memory that collecting gradients for growth took, for a short time.
    """

    sparse_tensors: CostRow
    dense_tensors: CostRow
    weights: CostRow
    bytes: CostRow
    record_bytes: CostRow
    optimizer_bytes: CostRow
    flops: CostRow
    checkpoint_bytes: CostRow
    growth_bytes: CostRow

    @property
    def rows(self) -> tuple[CostRow, ...]:
        return tuple(vars(self).values())

    def __str__(self) -> str:
        head = f"{'cost':<31}{'dense':>16}{'sparse':>16}{'sparse / dense':>16}"
        return "\n".join([head, *map(str, self.rows)])

    def to_dict(self) -> dict[str, dict[str, int | None]]:
        """The dense and the sparse quantity of each row, as plain data."""
        return {name: {"dense": row.dense, "sparse": row.sparse} for name, row in vars(self).items()}


def measure_cost(
    model: nn.Module,
    optimizers: Iterable[Optimizer],
    forward: Callable[[nn.Module, int], Any],
    n_scored: int = 1,
    checkpoint: str | None = None,
    growth_bytes: int = 0,
    record_bytes: int = 0,
) -> Cost:
    """Measure the sparse ``model``, and compute what it would cost with dense weights.

    Args:
        optimizers: those that train it; in the dense column their state has the size of the dense tensors.
        forward: scores interactions with the model that it is given, a copy of ``model``, so many times in one
            batch.
        n_scored: how many interactions these are.
        checkpoint: its file, if it was saved. The dense column has the size of the file with dense tensors
            instead.
    """
    weights = list(sparse_weights(model).values())
    optimizers = list(optimizers)
    stored = {id(p): p for p in model.parameters()}.values()
    n_sparse, n_bytes = sum(p.numel() for p in stored), sum(p.nbytes for p in stored)
    extra_weights = sum(w.numel - w.nnz for w in weights)
    extra_bytes = sum((w.numel - w.nnz) * w.values.element_size() for w in weights)
    index_bytes = sum(w.index_bytes for w in weights)
    state_bytes = sum(t.nbytes for o in optimizers for s in o.state.values() for t in _tensors(s))
    extra_state = sum(
        (w.numel - w.nnz) * t.element_size()
        for w in weights
        for o in optimizers
        for t in _tensors(o.state.get(w.values, {}))
        if t.shape == w.values.shape
    )
    file_bytes = os.path.getsize(checkpoint) if checkpoint and os.path.isfile(checkpoint) else None
    dense_file = None
    if file_bytes is not None:
        # a dense model has no record
        dense_file = file_bytes + extra_bytes + extra_state - index_bytes - record_bytes
    dense_flops, sparse_flops = _flops(model, forward, n_scored)
    n_alive = sum(w.nnz for w in weights)
    return Cost(
        sparse_tensors=CostRow("weights of sparse tensors", n_alive + extra_weights, n_alive),
        dense_tensors=CostRow("weights of dense tensors", n_sparse - n_alive, n_sparse - n_alive),
        weights=CostRow("weights", n_sparse + extra_weights, n_sparse),
        bytes=CostRow("weights + indices", n_bytes + extra_bytes, n_bytes + index_bytes, True),
        record_bytes=CostRow("record of what was alive", None, record_bytes, True),
        optimizer_bytes=CostRow("optimizer state", state_bytes + extra_state, state_bytes, True),
        flops=CostRow("forward FLOPs, one interaction", dense_flops, sparse_flops),
        checkpoint_bytes=CostRow("checkpoint", dense_file, file_bytes, True),
        growth_bytes=CostRow("peak growth buffer", None, growth_bytes, True),
    )


def _flops(
    model: nn.Module, forward: Callable[[nn.Module, int], Any], n_scored: int
) -> tuple[int | None, int | None]:
    try:
        return flops_of_one(model, forward, n_scored)
    except Exception as error:
        # a model without predict, that cannot be copied, or with an operation that cannot be traced may raise
        # anything; the rest of the table must not be lost
        getLogger().warning(f"forward FLOPs are not counted: {described(error)}")
        return None, None


def _tensors(state: dict) -> list[Tensor]:
    return [value for value in state.values() if isinstance(value, Tensor)]


def _readable(value: int | None, is_bytes: bool) -> str:
    if value is None:
        return "-"
    if not is_bytes:
        return f"{value:,}"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value} B"
