"""The exact softmax cross-entropy of vectors over all rows of a sparse table."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import e, log, log2
from types import ModuleType

import torch
from torch import Tensor

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.sparse.compressed_rows import CompressedRows
from recbole_dsl.sparse.slot_tensor import unmarked

# bytes of a processor's second cache, which a chunk's scores are to fit in beside the vectors; twice that, for
# fewer calls of PyTorch's functions
_CACHE = 2**20
# entries of a chunk's scores on other devices, where few large kernels are better than many small ones
_LARGE = 2**25
# samples that are gone through together, so that the vectors fit into the cache
SAMPLES = 256
# alive entries from which on loading what was compiled, or compiling, is worth it
_WORTH_COMPILING = 2**18
# share of alive entries from which on products of dense chunks are faster
_DENSE = 0.3


@dataclass(frozen=True)
class Targets:
    """What each of ``n`` samples is to predict: non-negative shares of some rows, and of all.

    Attributes:
        samples, rows: (k,) int64, ``rows`` ascending.
        shares: (k,) the share that the sample has of the row; those of the same row add up.
        of_all: (rows,) what every sample has of each row besides, or None.
        totals: (n,) the sum of each sample's shares.
    """

    samples: Tensor
    rows: Tensor
    shares: Tensor
    totals: Tensor
    of_all: Tensor | None = None

    @classmethod
    def of(cls, n: int, samples: Tensor, rows: Tensor, shares: Tensor, of_all: Tensor | None = None) -> "Targets":
        """From entries in any order."""
        rows, order = rows.sort(stable=True)
        samples, shares = samples[order], shares[order]
        totals = shares.new_zeros(n).index_add_(0, samples, shares)
        if of_all is not None:
            totals = totals + of_all.sum()
        return cls(samples, rows, shares, totals, of_all)

    def only(self, kept: Tensor) -> "Targets":
        """Those of the samples ``kept`` (m,) int64, ascending."""
        place = self.samples.new_full((len(self.totals),), -1)
        place[kept] = torch.arange(len(kept), device=kept.device)
        samples = place[self.samples]
        stay = samples >= 0
        return Targets(samples[stay], self.rows[stay], self.shares[stay], self.totals[kept], self.of_all)

    def within(self, entries: slice, start: int, samples: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Those among ``entries`` of some ``samples``: sample, row from ``start`` on, share, sample from 0 on."""
        of, rows, shares = self.samples[entries], self.rows[entries], self.shares[entries]
        if len(of) and samples.stop - samples.start < len(self.totals):
            inside = (of >= samples.start) & (of < samples.stop)
            of, rows, shares = of[inside], rows[inside], shares[inside]
        return of, rows - start, shares, of - samples.start


def cross_entropy(
    vectors: Tensor,
    table: CompressedRows,
    bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``F.cross_entropy(vectors @ table.T + bias, target, ...)`` for class indices, without its scores.

    Args:
        vectors: (n, columns), of the type of the table.
        bias: (rows,) or None.
        target: (n,) int64.
        weight: (rows,) non-negative, or None.
        reduction: "mean", "sum" or "none".

    Returns:
        a scalar, or (n,) for "none"; differentiable in ``vectors``, the values of ``table`` and ``bias``.

    Raises:
        IndexError: if a target is no row.
    """
    counts = target != ignore_index
    samples = counts.nonzero().view(-1)
    rows = target[samples]
    outside = rows[(rows < 0) | (rows >= table.n_rows)]
    if len(outside):
        raise IndexError(f"Target {int(outside[0])} is out of bounds.")
    of_rows = vectors.new_ones(len(rows)) if weight is None else weight.to(vectors.dtype)[rows]
    of_all = None
    if label_smoothing:
        of_all = vectors.new_ones(table.n_rows) if weight is None else weight.to(vectors.dtype)
        of_all = of_all * (label_smoothing / table.n_rows)
    everything = len(samples) == len(target)
    used = vectors if everything else vectors[samples]
    numbers = torch.arange(len(samples), device=target.device)
    targets = Targets.of(len(samples), numbers, rows, of_rows * (1 - label_smoothing), of_all)
    losses = soft_cross_entropy(used, table, bias, targets)
    if reduction == "mean":
        return losses.sum() / of_rows.sum()
    if reduction == "sum":
        return losses.sum()
    return losses if everything else losses.new_zeros(len(target)).index_put((samples,), losses)


def soft_cross_entropy(vectors: Tensor, table: CompressedRows, bias: Tensor | None, targets: Targets) -> Tensor:
    """For each sample minus the sum, over the rows, of its share times the row's log-softmax: (n,).

    The scores of all rows exist for one chunk of rows and of samples at a time, twice: for the sum of their
    exponentials, and in the backward pass again.
    """
    if not len(vectors):
        # nothing, yet differentiable in all of them
        return vectors.sum(1) + sum(0 * t.sum() for t in (table.values, bias) if t is not None)
    return _SoftCrossEntropy.apply(vectors, table.values, bias, table, targets)


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, vectors: Tensor, values: Tensor, bias: Tensor | None, table: CompressedRows, targets: Targets
    ):
        ctx.save_for_backward(vectors, values, bias)
        ctx.table, ctx.targets = table, targets
        vectors = vectors.detach()
        scoring = _Scoring(vectors, replace(table, values=unmarked(values).detach()), bias, targets)
        highest = vectors.new_full((len(vectors),), torch.finfo(vectors.dtype).min)
        sums, at_targets = torch.zeros_like(highest), torch.zeros_like(highest)
        for chunk in scoring.chunks():
            dense = chunk.rows.dense() if scoring.is_dense else None
            for block, columns in scoring.blocks:
                scores = scoring.scores(chunk, columns, dense)
                samples, rows, shares, places = targets.within(chunk.targets, chunk.start, block)
                if len(samples):
                    at_targets.index_add_(0, samples, shares * scores[rows, places])
                if targets.of_all is not None:
                    at_targets[block] += targets.of_all[chunk.start : chunk.stop] @ scores
                new = torch.maximum(highest[block], scores.amax(0))
                sums[block] *= (highest[block] - new).exp2_()
                sums[block] += scores.sub_(new).exp2_().sum(0)
                highest[block] = new
        ctx.log_sums = highest + sums.log2()
        return (targets.totals * ctx.log_sums - at_targets) * log(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        vectors, values, bias = (None if t is None else unmarked(t).detach() for t in ctx.saved_tensors)
        targets, log_sums = ctx.targets, ctx.log_sums
        weights = gradient * targets.totals
        kept = weights.nonzero().view(-1)
        n = len(vectors)
        if len(kept) < n:
            vectors, log_sums, weights = vectors[kept], log_sums[kept], weights[kept]
            targets = targets.only(kept)
        scoring = _Scoring(vectors, replace(ctx.table, values=values), bias, targets)
        of_vectors, of_values, of_bias = scoring.gradients(log_sums, weights)
        if len(kept) < n:
            of_vectors = of_vectors.new_zeros(n, of_vectors.shape[1]).index_copy_(0, kept, of_vectors)
        return of_vectors, of_values, of_bias, None, None


@dataclass(frozen=True)
class _Chunk:
    """Rows of the table from ``start`` to ``stop``, their slots, and which of the targets are among them."""

    rows: CompressedRows
    start: int
    stop: int
    slots: slice
    targets: slice


class _Scoring:
    """The scores of the rows of ``table`` for ``vectors`` (n, columns), a chunk of rows and of samples at a time.

    Attributes:
        blocks: the samples that are gone through together, and their vectors, (columns, n) contiguous. They are
            scaled for scores to the base of two, whose powers take a third of the time that those of e take.
        is_dense: whether products of dense chunks are made, instead of those of the alive entries alone.
    """

    def __init__(self, vectors: Tensor, table: CompressedRows, bias: Tensor | None, targets: Targets):
        self.vectors, self.table, self.targets = vectors, table, targets
        self.bias = None if bias is None else bias * log2(e)
        self._on_cpu = table.values.device.type == "cpu"
        self.is_dense = not self._on_cpu or len(table.values) > _DENSE * table.n_rows * table.n_columns
        self._loops = compiled_products() if self._is_worth_compiling() else None
        self.blocks = self._in_blocks(vectors * log2(e))
        self._bounds = self._chunk_bounds()
        # asking for memory for a chunk's scores anew each time takes longer than the products
        height = self._bounds[0][1] if self._bounds else 0
        self._room = vectors.new_empty(height * min(len(vectors), self._n_together))

    @property
    def _n_together(self) -> int:
        return SAMPLES if self._on_cpu else 2**30

    def _is_worth_compiling(self) -> bool:
        """Whether Numba's loops, which take one thread, are faster than PyTorch's functions, if it is there."""
        values = self.table.values
        on_cpu = self._on_cpu and values.dtype in (torch.float32, torch.float64)
        return on_cpu and len(values) >= _WORTH_COMPILING and torch.get_num_threads() <= 2

    def _chunk_bounds(self) -> list[tuple[int, int]]:
        """First and end row of chunks whose products with the vectors of a block fit into a processor's cache."""
        table, width = self.table, max(1, min(len(self.vectors), self._n_together))
        height = _LARGE // width
        if self._on_cpu:
            size = _CACHE if self._loops else 2 * _CACHE
            height = (size // table.values.element_size() - table.n_columns * width) // width
        height = max(256, height)
        return [(start, min(start + height, table.n_rows)) for start in range(0, table.n_rows, height)]

    def _in_blocks(self, vectors: Tensor) -> list[tuple[slice, Tensor]]:
        starts = range(0, len(vectors), self._n_together)
        slices = [slice(start, min(start + self._n_together, len(vectors))) for start in starts]
        return [(block, vectors[block].t().contiguous()) for block in slices]

    def chunks(self) -> Iterator[_Chunk]:
        stops = torch.tensor([stop for _, stop in self._bounds], device=self.targets.rows.device)
        ends = torch.searchsorted(self.targets.rows, stops).tolist()
        parts = zip(self.table.chunks(self._bounds, self._loops), self._bounds, [0, *ends], ends)
        for (slots, rows), (start, stop), first, last in parts:
            yield _Chunk(rows, start, stop, slots, slice(first, last))

    def scores(self, chunk: _Chunk, columns: Tensor, dense: Tensor | None) -> Tensor:
        """(rows of the chunk, samples), to the base of two; overwritten by the next call."""
        shape = chunk.stop - chunk.start, columns.shape[1]
        out = self._room[: shape[0] * shape[1]].view(shape)
        scores = chunk.rows.times(columns, out) if dense is None else torch.mm(dense, columns, out=out)
        return scores if self.bias is None else scores.add_(self.bias[chunk.start : chunk.stop].unsqueeze(1))

    def gradients(self, log_sums: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Those of the sum of the losses, each times its weight / total, in vectors, values and bias."""
        table, targets = self.table, self.targets
        weighted = self._in_blocks(self.vectors * weights.unsqueeze(1))
        of_blocks, of_values = [torch.zeros_like(one) for _, one in self.blocks], torch.zeros_like(table.values)
        of_bias = None if self.bias is None else torch.zeros_like(self.bias)
        by_rows = self.is_dense or table.sink is not None
        for chunk in self.chunks():
            here = slice(chunk.start, chunk.stop)
            dense = chunk.rows.dense() if by_rows else None
            of_rows = torch.zeros_like(dense) if by_rows else None
            for (block, columns), (_, right), of_block in zip(self.blocks, weighted, of_blocks):
                scores = self.scores(chunk, columns, dense if self.is_dense else None)
                shares = scores.sub_(log_sums[block]).exp2_()
                samples, rows, wanted, places = targets.within(chunk.targets, chunk.start, block)
                if len(samples):
                    at = rows * shares.shape[1] + places
                    shares.view(-1).index_add_(0, at, wanted / targets.totals[samples], alpha=-1)
                if targets.of_all is not None:
                    shares.addr_(targets.of_all[here], 1 / targets.totals[block], alpha=-1)
                if of_bias is not None:
                    of_bias[here] += shares @ weights[block]
                if by_rows:
                    of_rows.addmm_(shares, right.t())
                    of_block.addmm_(dense.t(), shares)
                else:
                    chunk.rows.add_gradients(shares, right, of_values[chunk.slots], of_block)
            if by_rows:
                of_values[chunk.slots] = of_rows.view(-1)[chunk.rows.positions()]
            if table.sink is not None:
                ids = torch.arange(chunk.start, chunk.stop, device=weights.device) + table.first_row
                table.sink(ids, of_rows)
        of_vectors = torch.cat(of_blocks, 1) if of_blocks else self.vectors.t()
        return of_vectors.t() * weights.unsqueeze(1), of_values, of_bias


def compiled_products() -> ModuleType | None:
    """The loops that Numba compiles, if it is installed."""
    return compiled_loops("recbole_dsl.sparse.softmax.compiled_products")
