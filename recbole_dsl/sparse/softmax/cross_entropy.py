"""The exact softmax cross-entropy of vectors over all rows of a sparse table."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import e, log, log2

import torch
from torch import Tensor

from recbole_dsl.sparse.slots import unmarked
from recbole_dsl.sparse.softmax.table import Chunk, Table


@dataclass(frozen=True)
class Targets:
    """What each of ``n`` samples is to predict: non-negative shares of some rows, and of all.

    Attributes:
        samples, rows: (k,) int64, ``rows`` ascending.
        shares: (k,) the share that the sample has of the row; what is repeated adds up.
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


def cross_entropy(
    vectors: Tensor,
    table: Table,
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
    places = torch.arange(len(samples), device=target.device)
    targets = Targets.of(len(samples), places, rows, of_rows * (1 - label_smoothing), of_all)
    losses = soft_cross_entropy(used, table, bias, targets)
    if reduction == "mean":
        return losses.sum() / of_rows.sum()
    if reduction == "sum":
        return losses.sum()
    return losses if everything else losses.new_zeros(len(target)).index_put((samples,), losses)


def soft_cross_entropy(vectors: Tensor, table: Table, bias: Tensor | None, targets: Targets) -> Tensor:
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
    def forward(ctx, vectors: Tensor, values: Tensor, bias: Tensor | None, table: Table, targets: Targets):
        n = len(vectors)
        ctx.save_for_backward(vectors, values, bias)
        vectors, values = vectors.detach(), unmarked(values).detach()
        # powers of two take a third of the time that those of e take
        blocks = _blocks(vectors * log2(e), table)
        bias_2 = None if bias is None else bias * log2(e)
        highest = vectors.new_full((n,), torch.finfo(vectors.dtype).min)
        sums, at_targets = vectors.new_zeros(n), vectors.new_zeros(n)
        room = _room(vectors, table)
        for chunk, some in _with_targets(table, targets, n):
            dense = chunk.dense(values[chunk.entries]) if table.is_dense else None
            for block, columns in blocks:
                scores = _scores(chunk, values, dense, columns, bias_2, room)
                entries = some.of(chunk, block)
                if len(entries.samples):
                    at_targets.index_add_(
                        0, entries.samples, entries.shares * scores[entries.rows, entries.places]
                    )
                if targets.of_all is not None:
                    at_targets[block] += targets.of_all[chunk.start : chunk.stop] @ scores
                new = torch.maximum(highest[block], scores.amax(0))
                sums[block] *= (highest[block] - new).exp2_()
                sums[block] += scores.sub_(new).exp2_().sum(0)
                highest[block] = new
        log_sums = highest + sums.log2()
        ctx.table, ctx.targets, ctx.log_sums = table, targets, log_sums
        return (targets.totals * log_sums - at_targets) * log(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        vectors, values, bias = (None if t is None else unmarked(t).detach() for t in ctx.saved_tensors)
        table, targets, log_sums = ctx.table, ctx.targets, ctx.log_sums
        weights = gradient * targets.totals
        kept = weights.nonzero().view(-1)
        n = len(vectors)
        if len(kept) < n:
            vectors, log_sums, weights = vectors[kept], log_sums[kept], weights[kept]
            targets = targets.only(kept)
        of_vectors, of_values, of_bias = _gradients(vectors, values, bias, table, targets, log_sums, weights)
        if len(kept) < n:
            of_vectors = of_vectors.new_zeros(n, of_vectors.shape[1]).index_copy_(0, kept, of_vectors)
        return of_vectors, of_values, of_bias, None, None


def _gradients(
    vectors: Tensor,
    values: Tensor,
    bias: Tensor | None,
    table: Table,
    targets: Targets,
    log_sums: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of the sum of the losses, each times its weight / total, in vectors, values and bias."""
    n = len(vectors)
    blocks, weighted = _blocks(vectors * log2(e), table), _blocks(vectors * weights.unsqueeze(1), table)
    bias_2 = None if bias is None else bias * log2(e)
    of_blocks, of_values = [torch.zeros_like(columns) for _, columns in blocks], torch.zeros_like(values)
    room = _room(vectors, table)
    of_bias = None if bias is None else torch.zeros_like(bias)
    by_rows = table.is_dense or table.sink is not None
    for chunk, some in _with_targets(table, targets, n):
        alive = values[chunk.entries]
        dense = chunk.dense(alive) if by_rows else None
        of_rows = vectors.new_zeros(chunk.stop - chunk.start, table.n_columns) if by_rows else None
        for (block, columns), (_, right), of_block in zip(blocks, weighted, of_blocks):
            scores = _scores(chunk, values, dense if table.is_dense else None, columns, bias_2, room)
            shares = scores.sub_(log_sums[block]).exp2_()
            entries = some.of(chunk, block)
            if len(entries.samples):
                at = entries.rows * shares.shape[1] + entries.places
                shares.view(-1).index_add_(0, at, entries.shares / targets.totals[entries.samples], alpha=-1)
            if targets.of_all is not None:
                shares.addr_(targets.of_all[chunk.start : chunk.stop], 1 / targets.totals[block], alpha=-1)
            if bias is not None:
                of_bias[chunk.start : chunk.stop] += shares @ weights[block]
            if by_rows:
                of_rows.addmm_(shares, right.t())
                of_block.addmm_(dense.t(), shares)
            else:
                chunk.add_gradients(alive, shares, right, of_values[chunk.entries], of_block)
        if by_rows:
            of_values[chunk.entries] = of_rows.view(-1)[chunk.positions]
        if table.sink is not None:
            first = table.first_row
            table.sink(torch.arange(first + chunk.start, first + chunk.stop, device=values.device), of_rows)
    of_vectors = torch.cat(of_blocks, 1) if of_blocks else vectors.t()
    return of_vectors.t() * weights.unsqueeze(1), of_values, of_bias


def _blocks(vectors: Tensor, table: Table) -> list[tuple[slice, Tensor]]:
    """The samples that are gone through together, and their vectors, (columns, n) contiguous."""
    starts = range(0, len(vectors), table.n_vectors)
    slices = [slice(start, min(start + table.n_vectors, len(vectors))) for start in starts]
    return [(block, vectors[block].t().contiguous()) for block in slices]


@dataclass(frozen=True)
class _Entries:
    """Targets among the rows of a chunk; ``rows`` and ``places`` are counted within the chunk and the block."""

    samples: Tensor
    rows: Tensor
    shares: Tensor
    places: Tensor


@dataclass(frozen=True)
class _Some:
    """The targets from ``start`` to ``end``."""

    targets: Targets
    start: int
    end: int

    def of(self, chunk: Chunk, block: slice) -> _Entries:
        some = slice(self.start, self.end)
        samples, rows, shares = self.targets.samples[some], self.targets.rows[some], self.targets.shares[some]
        if len(samples) and block.stop - block.start < len(self.targets.totals):
            within = (samples >= block.start) & (samples < block.stop)
            samples, rows, shares = samples[within], rows[within], shares[within]
        return _Entries(samples, rows - chunk.start, shares, samples - block.start)


def _with_targets(table: Table, targets: Targets, n: int) -> Iterator[tuple[Chunk, _Some]]:
    """Each chunk of the table, and the targets that are among its rows."""
    bounds = table.bounds(n)
    stops = torch.tensor([stop for _, stop in bounds], device=targets.rows.device)
    ends = torch.searchsorted(targets.rows, stops).tolist()
    for chunk, start, end in zip(table.chunks(bounds), [0, *ends], ends):
        yield chunk, _Some(targets, start, end)


def _room(vectors: Tensor, table: Table) -> Tensor:
    """Memory for the scores of a chunk: asking for it anew each time takes longer than the products."""
    heights = [stop - start for start, stop in table.bounds(len(vectors))[:1]]
    return vectors.new_empty(sum(heights) * min(len(vectors), table.n_vectors))


def _scores(
    chunk: Chunk, values: Tensor, dense: Tensor | None, vectors: Tensor, bias: Tensor | None, room: Tensor
) -> Tensor:
    """(rows of the chunk, samples): to the base of two, in the memory of ``room``."""
    shape = (chunk.stop - chunk.start, vectors.shape[1])
    out = room[: shape[0] * shape[1]].view(shape)
    scores = (
        chunk.times(values[chunk.entries], vectors, out) if dense is None else torch.mm(dense, vectors, out=out)
    )
    return scores if bias is None else scores.add_(bias[chunk.start : chunk.stop].unsqueeze(1))
