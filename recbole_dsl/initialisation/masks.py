"""Which weights are alive at the start."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_dsl.sparse.compressed_rows import row_blocks, true_at
from recbole_dsl.topology.selection import choose, draw, share_out, sortable


@dataclass(frozen=True)
class Start:
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


def random_mask(start: Start, generator: torch.Generator) -> Iterator[Tensor]:
    """Weights at random; every block of rows gets its share of them.

    With ``keep_rows`` each row gets one, and the others are drawn at random.

    Returns:
        for each of `row_blocks` which are alive: (rows of the block, columns), bool, on the CPU.
    """
    n_rows = start.rows - (start.padding_row is not None)
    first_of_rows = start.keep_rows and start.nnz >= n_rows
    blocks = list(row_blocks(start.rows, start.columns))
    filled = [stop - first - _has_padding(start, first, stop) for first, stop in blocks]
    sizes = [n * (start.columns - first_of_rows) for n in filled]
    counts = share_out(start.nnz - n_rows * first_of_rows, sizes, generator)
    for (first, stop), count in zip(blocks, counts):
        alive = torch.zeros(stop - first, start.columns, dtype=torch.bool)
        if first_of_rows:
            column = torch.randint(start.columns, (len(alive), 1), generator=generator)
            alive.scatter_(1, column, True)
        pool = ~alive
        if _has_padding(start, first, stop):
            pool[start.padding_row - first] = alive[start.padding_row - first] = False
        yield alive | draw(pool.view(-1), count, generator).view_as(alive)


def largest_mask(start: Start, generator: torch.Generator) -> Iterator[Tensor]:
    """The weights with the largest magnitudes of the dense initialisation; equals at random.

    With ``keep_rows`` the largest of each row come first, if there are as many weights.

    Returns:
        as `random_mask`.
    """
    dense = start.dense()
    yield from largest_entries(start, lambda first, stop: dense[first:stop], generator)


def largest_entries(
    start: Start, values: Callable[[int, int], Tensor], generator: torch.Generator
) -> Iterator[Tensor]:
    """`largest_mask` of a matrix of which ``values`` gives blocks of rows, (stop - first, columns)."""
    keep_rows = start.keep_rows and start.nnz >= start.rows - (start.padding_row is not None)
    blocks = list(row_blocks(start.rows, start.columns))

    def candidates(number: int, highest: int | None) -> tuple[Tensor, Tensor]:
        """As `choose` asks for them, the largest first."""
        first, stop = blocks[number]
        some = values(first, stop).detach().abs().cpu()
        if keep_rows:
            some.scatter_(1, some.argmax(1, keepdim=True), float("inf"))
        if _has_padding(start, first, stop):
            some[start.padding_row - first] = -1.0
        keys = ~sortable(some).view(-1)
        if highest is None:
            return keys, torch.arange(len(keys))
        places = true_at(keys <= highest)
        return keys[places], places

    choice = choose(candidates, len(blocks), start.nnz, generator)
    for number, (first, stop) in enumerate(blocks):
        alive = torch.zeros(stop - first, start.columns, dtype=torch.bool)
        places = choice.of_block(number, generator)
        if places is not None:
            alive.view(-1).index_fill_(0, places, True)
        yield alive


def _has_padding(start: Start, first: int, stop: int) -> bool:
    return start.padding_row is not None and first <= start.padding_row < stop


Initialiser = Callable[[Start, torch.Generator], Iterator[Tensor]]

# "erk" differs from "uniform" in its budget alone, "svd" in what is done once the training data is known
INITIALISERS: dict[str, Initialiser] = {
    "svd": random_mask,
    "uniform": random_mask,
    "erk": random_mask,
    "magnitude": largest_mask,
}
