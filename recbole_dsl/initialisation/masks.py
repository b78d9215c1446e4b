"""The initial topology: which weights are alive at first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import row_blocks, true_at
from recbole_dsl.topology.selection import choose, draw, share_out, sortable


@dataclass(frozen=True)
class MaskSpec:
    """What an initialiser knows of a tensor (rows, columns).

    Attributes:
        nnz: how many weights are to be alive, at most all outside the padding row.
        padding_row: a row that stays empty, or None.
        keep_rows: whether every other row gets a weight, if there are as many.
        dense: gives the dense initialisation, (rows, columns); None where that is not known.
    """

    rows: int
    columns: int
    nnz: int
    padding_row: int | None
    keep_rows: bool
    dense: Callable[[], Tensor] | None = None

    @property
    def fills_rows(self) -> bool:
        """Whether every row but the padding gets a weight."""
        return self.keep_rows and self.nnz >= self.rows - (self.padding_row is not None)

    def padding_in(self, first: int, stop: int) -> int | None:
        """The padding row's index among the rows from ``first`` to ``stop``, if it is one of them."""
        row = self.padding_row
        return row - first if row is not None and first <= row < stop else None


def random_mask(spec: MaskSpec, generator: torch.Generator) -> Iterator[Tensor]:
    """Weights at random; every block of rows gets its share of them.

    With ``keep_rows`` each row gets one, and the others are drawn at random.

    Returns:
        for each of `row_blocks` which are alive: (rows of the block, columns), bool, on the CPU.
    """
    blocks = list(row_blocks(spec.rows, spec.columns))
    filled = [stop - first - (spec.padding_in(first, stop) is not None) for first, stop in blocks]
    sizes = [n * (spec.columns - spec.fills_rows) for n in filled]
    counts = share_out(spec.nnz - sum(filled) * spec.fills_rows, sizes, generator)
    for (first, stop), count in zip(blocks, counts):
        alive = torch.zeros(stop - first, spec.columns, dtype=torch.bool)
        if spec.fills_rows:
            column = torch.randint(spec.columns, (len(alive), 1), generator=generator)
            alive.scatter_(1, column, True)
        pool = ~alive
        padding = spec.padding_in(first, stop)
        if padding is not None:
            pool[padding] = alive[padding] = False
        yield alive | draw(pool.view(-1), count, generator).view_as(alive)


def largest_mask(spec: MaskSpec, generator: torch.Generator) -> Iterator[Tensor]:
    """The weights with the largest magnitudes of the dense initialisation, as `random_mask` gives them.

    With ``keep_rows`` the largest of each row come first: if there are fewer weights than rows, no row gets two.
    Ties are broken at random.
    """
    dense = spec.dense()
    yield from largest_entries(spec, lambda first, stop: dense[first:stop], generator)


def largest_entries(
    spec: MaskSpec, values: Callable[[int, int], Tensor], generator: torch.Generator
) -> Iterator[Tensor]:
    """`largest_mask` of a matrix of which ``values`` gives blocks of rows, (stop - first, columns)."""
    blocks = list(row_blocks(spec.rows, spec.columns))

    def candidates(number: int, highest: int | None) -> tuple[Tensor, Tensor]:
        """As `choose` asks for them, the largest first."""
        first, stop = blocks[number]
        some = values(first, stop).detach().abs().cpu()
        if spec.keep_rows:
            best = some.argmax(1, keepdim=True)
            some = some.scatter(1, best, float("inf")) if spec.fills_rows else _only(some, best)
        padding = spec.padding_in(first, stop)
        if padding is not None:
            some[padding] = -1.0
        keys = ~sortable(some).view(-1)
        if highest is None:
            return keys, torch.arange(len(keys))
        places = true_at(keys <= highest)
        return keys[places], places

    choice = choose(candidates, len(blocks), spec.nnz, generator)
    for number, (first, stop) in enumerate(blocks):
        alive = torch.zeros(stop - first, spec.columns, dtype=torch.bool)
        places = choice.of_block(number, generator, candidates)
        if places is not None:
            alive.view(-1).index_fill_(0, places, True)
        yield alive


def _only(values: Tensor, columns: Tensor) -> Tensor:
    """``values`` in one of the ``columns`` (rows, 1) of each row, elsewhere -1."""
    return torch.full_like(values, -1.0).scatter_(1, columns, values.gather(1, columns))


Initialiser = Callable[[MaskSpec, torch.Generator], Iterator[Tensor]]

# "erk" differs from "uniform" in its budget alone, "svd" in what is done once the training data is known
INITIALISERS: dict[str, Initialiser] = {
    "svd": random_mask,
    "uniform": random_mask,
    "erk": random_mask,
    "magnitude": largest_mask,
}
