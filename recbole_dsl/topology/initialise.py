"""Which weights are alive at the start."""

from typing import Callable, Optional

import torch
from torch import Tensor


def random_positions(
    dense: Tensor,
    nnz: int,
    generator: torch.Generator,
    padding_row: Optional[int] = None,
    keep_rows: bool = False,
) -> Tensor:
    """``nnz`` positions of ``dense`` (rows, columns) at random, outside ``padding_row``.

    With ``keep_rows`` each row gets one, if there are as many, and the others are drawn at random.

    Returns:
        (nnz,) int64, ascending, on the CPU.
    """
    rows, columns = dense.shape
    if padding_row is not None:
        rows -= 1
    if keep_rows and nnz >= rows:
        first = torch.randint(columns, (rows,), generator=generator)
        others = sample(nnz - rows, rows * (columns - 1), generator)
        row = torch.div(others, max(columns - 1, 1), rounding_mode="floor")
        others += row + (others - row * (columns - 1) >= first[row])
        positions = torch.cat([torch.arange(rows) * columns + first, others]).sort().values
    else:
        positions = sample(nnz, rows * columns, generator)
    if padding_row is not None:
        positions += columns * (positions >= padding_row * columns)
    return positions


def largest_positions(
    dense: Tensor,
    nnz: int,
    generator: torch.Generator,
    padding_row: Optional[int] = None,
    keep_rows: bool = False,
) -> Tensor:
    """The ``nnz`` positions of ``dense`` (rows, columns) with the largest magnitudes, outside ``padding_row``.

    With ``keep_rows`` the largest of each row come first, if there are as many weights.

    Returns:
        (nnz,) int64, ascending, on the CPU.
    """
    magnitude = dense.detach().abs()
    if keep_rows and nnz >= len(dense) - (padding_row is not None):
        magnitude.scatter_(1, magnitude.argmax(1, keepdim=True), float("inf"))
    if padding_row is not None:
        magnitude[padding_row] = -1.0
    return magnitude.view(-1).topk(nnz, sorted=False).indices.sort().values.cpu()


def sample(k: int, n: int, generator: torch.Generator) -> Tensor:
    """``k`` distinct integers below ``n`` at random, ascending; memory in proportion to ``min(k, n - k)``
    unless more than half are taken."""
    if 2 * k > n:
        taken = torch.ones(n, dtype=torch.bool)
        taken[sample(n - k, n, generator)] = False
        return taken.nonzero().view(-1)
    drawn = torch.empty(0, dtype=torch.long)
    while len(drawn) < k:
        more = torch.randint(n, (k - len(drawn) + k // 8 + 8,), generator=generator)
        drawn = torch.cat([drawn, more]).unique()
    surplus = torch.randperm(len(drawn), generator=generator)[k:]
    keep = torch.ones(len(drawn), dtype=torch.bool)
    keep[surplus] = False
    return drawn[keep]


Initialiser = Callable[[Tensor, int, torch.Generator, Optional[int], bool], Tensor]

# "erk" differs from "uniform" in its budget alone
INITIALISERS: dict[str, Initialiser] = {
    "uniform": random_positions,
    "erk": random_positions,
    "magnitude": largest_positions,
}
