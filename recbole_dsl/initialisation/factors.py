"""Factors of an interaction matrix, rotated so that few columns describe a row: initial embedding tables."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from recbole_dsl.initialisation.codes import rows_come_first, spread
from recbole_dsl.initialisation.masks import MaskSpec, largest_entries
from recbole_dsl.initialisation.singular import ACCURATE, largest_singular, second_singular
from recbole_dsl.sparse.rewrite import exchanged
from recbole_dsl.sparse.weight import SparseWeight

Rows = Callable[[int, int], Tensor]

# an interaction weighs 1 / (its user's number of interactions * its item's) to this power. With 0.5, as in graph
# models, the factors describe rare rows too well at the expense of the others
_DAMPING = 0.25
# factors stand out if they are larger than this many times those of shuffled interactions
_SIGNAL = 1.0
# a singular value s is multiplied by 1 - (e / s)^2 to this power, where e is that of shuffled interactions
_SHRINKAGE = 0.5
# the scale of factors that do not stand out; not zero, for a weight of zero whose partners are zero has no
# gradient
_NOISE = 0.1
# the scale of repeated factors
_REPEATED = 1.0
# rows of a side that are factorised, and factors of them, at most
_FACTORISED = 2**15
_MOST_FACTORS = 128
_MAX_ROTATIONS = 60
# a rotation is found from about so many rows: more change it less than another seed does
_ROTATED = 2**14
_ALL = slice(None)


class Factors:
    """A truncated singular value decomposition R ~ U V^T, rotated by varimax (Kaiser 1958).

    R is the damped matrix of interactions, users x items. A rotation of both sides changes none of their products;
    varimax finds one in which a row's entries are large or small rather than alike. The largest ones are then a
    sparse code of the row, in columns that mean the same for users and items. Only factors that stand out from
    those of shuffled interactions are rotated (parallel analysis, Horn 1965). Their singular values s count as
    sqrt(s^2 - e^2), where e is the largest of shuffled interactions: the best estimate of a square matrix seen
    through noise (Gavish and Donoho 2017). The other factors are made small. Of a side with more than 32,768 rows
    only the most active are factorised. All are then projected, a block at a time, so that no dense table is made.

    Args:
        interactions: (users, items); non-zero entries count as 1.
        columns: number of factors; those beyond the rank of R, and the 128th, are small random projections of R.
        seed: of the shuffle, of the iteration's start and of random projections.
        damping: an interaction counts as 1 / (its user's number of interactions * its item's) to this power.
        depth: of the factorisation, `ACCURATE` or `QUICK` of `recbole_dsl.initialisation.singular`.

    Attributes:
        n_standing_out: how many factors are rotated.
        damping: as given.
        steps: of `spread`; 0 before that.
        group: the key of these factors in a cache; None if they are in none.
    """

    group: str | None = None

    def __init__(
        self,
        interactions: csr_matrix,
        columns: int,
        seed: int = 0,
        damping: float = _DAMPING,
        depth: int = ACCURATE,
    ):
        self.damping, self.steps = damping, 0
        self._columns, self._seed = columns, seed
        self._matrices, self._some, weights = self._take(interactions)
        noise = _SIGNAL * second_singular(_damp(_shuffle(self._some, seed), *weights), seed)
        self._vectors = largest_singular(self._some, min(columns, _MOST_FACTORS), seed, depth)
        self._found, self._turn = _stand_out(*self._vectors, noise)
        self.n_standing_out = len(self._turn)

    def kept(self) -> dict[str, Any]:
        """What `from_kept` needs beside the interactions: plain data and two arrays of (factorised, columns)."""
        of_these = ("n_standing_out", "damping", "steps", "_onto")
        return {name: getattr(self, name) for name in of_these}

    @classmethod
    def from_kept(cls, interactions: csr_matrix, kept: dict[str, Any]) -> "Factors":
        """The same `users` and `items` without a factorisation, from what `kept` gave."""
        factors = cls.__new__(cls)
        vars(factors).update(kept, _interactions=interactions)
        return factors

    @cached_property
    def repeated(self) -> "Factors":
        """These, but with the rotated factors again in the columns beyond the rank and the 128th.

        Each time they are rotated at random: as in an overcomplete dictionary, a row then has more directions of
        which few describe it.
        """
        n = self.n_standing_out
        draw = np.random.default_rng(self._seed)
        n_times = -(-(self._columns - self._found[0].shape[1]) // n)
        turns = [np.linalg.qr(draw.standard_normal((n, n)))[0] for _ in range(n_times)]
        factors = copy(self)
        factors._onto = self._with([[_REPEATED * side[:, :n] @ turn for turn in turns] for side in self._found])
        return factors

    def spread(self, steps: int, densities: tuple[float, float]) -> "Factors":
        """Projections onto the sparse codes of `codes.spread`, computed from all factors, rotated.

        Args:
            steps: of `codes.spread`; 0 gives these factors as they are.
            densities: those of the weights of users, and of items, that are initialised from them.
        """
        if steps == 0:
            return self
        codes = spread(self._some, self._rotated_items, densities, steps)
        n_more = self._columns - codes[0].shape[1]
        draw = np.random.default_rng(self._seed)
        factors = copy(self)
        factors.steps = steps
        factors._onto = self._with(
            [[_NOISE * side.std() * draw.standard_normal((len(side), n_more))] for side in codes], codes
        )
        return factors

    def users(self, start: int, stop: int, columns: slice = _ALL) -> Tensor:
        """The factors of the users from ``start`` to ``stop``: (stop - start, columns), float32."""
        return self._project(0, start, stop, columns)

    def items(self, start: int, stop: int, columns: slice = _ALL) -> Tensor:
        """The factors of the items from ``start`` to ``stop``: (stop - start, columns), float32."""
        return self._project(1, start, stop, columns)

    @cached_property
    def _matrices(self) -> tuple[csr_matrix, csr_matrix]:
        """The damped interactions and their transposed, of those whose other side is factorised."""
        return self._take(self._interactions)[0]

    def _take(
        self, interactions: csr_matrix
    ) -> tuple[tuple[csr_matrix, csr_matrix], csr_matrix, list[np.ndarray]]:
        """`_matrices`, those of them to be factorised, and what their users and items weigh."""
        matrix = _ones(interactions)
        degrees = [np.asarray(matrix.sum(axis)).ravel() for axis in (1, 0)]
        weights = [np.maximum(degree, 1).astype(np.float32) ** -self.damping for degree in degrees]
        matrix = _damp(matrix, *weights)
        users, items = map(_most_active, degrees)
        matrices = _some_columns(matrix, items), _some_columns(matrix.T.tocsr(), users)
        return matrices, matrices[0][users], [weights[0][users], weights[1][items]]

    @cached_property
    def _rotated_items(self) -> np.ndarray:
        """All factors of the factorised items, including those that do not stand out."""
        left, sizes, right = self._vectors
        sides = [side * np.sqrt(sizes) for side in (left, right)]
        # near the final rotation
        begin = np.eye(len(sizes))
        begin[: self.n_standing_out, : self.n_standing_out] = self._turn
        return (sides[1] @ _rotation(sides, begin)).astype(np.float32)

    @cached_property
    def _onto(self) -> list[np.ndarray]:
        draw = np.random.default_rng(self._seed)
        sizes = [_NOISE * (len(side) * self._vectors[1][-1]) ** -0.5 for side in self._found]
        n_more = self._columns - self._found[0].shape[1]
        return self._with(
            [[size * draw.standard_normal((len(side), n_more))] for side, size in zip(self._found, sizes)]
        )

    def _with(
        self, more: Sequence[Sequence[np.ndarray]], found: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """The matrices that rows of the other side are projected onto, with ``more`` columns after those found."""
        found = self._found if found is None else found
        sides = (np.hstack([side, *parts])[:, : self._columns] for side, parts in zip(found, more))
        return [side.astype(np.float32) for side in sides]

    def _project(self, side: int, start: int, stop: int, columns: slice) -> Tensor:
        matrix = self._matrices[side]
        # a slice copies, even of all rows
        rows = matrix if stop - start == matrix.shape[0] else matrix[start:stop]
        return torch.from_numpy(rows @ self._onto[1 - side][:, columns])


def most_active(interactions: csr_matrix) -> csr_matrix:
    """The interactions of the users and items that `Factors` factorises: CSR, float32, 1 or 0."""
    matrix = _ones(interactions)
    users, items = (_most_active(np.asarray(matrix.sum(axis)).ravel()) for axis in (1, 0))
    return matrix[users][:, items]


@torch.no_grad()
def initialise_from(
    weight: SparseWeight,
    rows: Rows,
    generator: torch.Generator,
    by_share: bool = False,
    square_sum: float | None = None,
    nnz: int | None = None,
) -> None:
    """Make the largest entries of ``rows`` the alive ones of ``weight``, in place.

    If `rows_come_first`, each row but the padding gets its largest one first. The values are those of ``rows``,
    scaled.

    Args:
        rows: gives a block of rows of a matrix like the weight: (stop - start, columns), float.
        by_share: whether entries are compared after each row is divided by its norm.
        square_sum: sum of the squares of the values then. By default the mean squared norm of a row is the root of
            the number of columns, so that products of independent rows have a variance of about 1.
        nnz: number of alive weights then; it stays by default.
    """
    nnz = weight.nnz if nnz is None else nnz
    if square_sum is None:
        square_sum = weight.n_rows * weight.n_columns**0.5

    def compared(start: int, stop: int) -> Tensor:
        return F.normalize(rows(start, stop)) if by_share else rows(start, stop)

    keep_rows = rows_come_first(nnz, weight.n_rows, by_share)
    spec = MaskSpec(weight.n_rows, weight.n_columns, nnz, weight.padding_row, keep_rows)
    alive = largest_entries(spec, compared, generator)
    weight.exchange(lambda _, old: exchanged(old, next(alive).view(-1).to(old.device)), nnz)
    for begin, end, first, last in weight.row_blocks():
        block = rows(begin, end).to(weight.values)
        weight.values[first:last] = block.view(-1)[weight.positions_in(begin, end, first, last)]
    squares = weight.values.square().sum()
    if squares > 0:
        weight.values.mul_((square_sum / squares).sqrt())


def _stand_out(
    left: np.ndarray, sizes: np.ndarray, right: np.ndarray, noise: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Matrices (users, columns) and (items, columns) that the other side's rows are projected onto.

    Args:
        left, sizes, right: the result of `largest_singular`.
        noise: singular values up to this are noise, and larger ones are shrunk by it.

    Returns:
        The matrices, and the rotation (k, k) of the k columns that stand out.
    """
    n = max(1, int((sizes > noise).sum()))
    # the root, for it is in both sides
    kept = np.maximum(1 - (noise / sizes[:n]) ** 2, 0) ** (_SHRINKAGE / 2)
    scale = np.full(len(sizes), _NOISE)
    scale[:n] = np.maximum(kept, _NOISE)
    turn = _rotation([side[:, :n] * np.sqrt(sizes[:n]) * scale[:n] for side in (left, right)])
    turned = np.diag(scale)
    turned[:n, :n] = scale[:n, None] * turn
    return [(side / np.sqrt(sizes)) @ turned for side in (left, right)], turn


def _rotation(sides: list[np.ndarray], begin: np.ndarray | None = None) -> np.ndarray:
    """The rotation of both ``sides``, with equal weight, by `_varimax`, in float64.

    Where they have twice `_ROTATED` rows or more, every second or third row, and so on, stands for all.
    """
    step = max(1, sum(map(len, sides)) // _ROTATED)
    factors = [torch.from_numpy(side[::step]).float() for side in sides]
    loadings = torch.cat([f / f.square().mean().sqrt() for f in factors])
    begin = torch.eye(loadings.shape[1]) if begin is None else torch.from_numpy(begin)
    return _varimax(loadings, begin.double()).numpy()


def _ones(interactions: csr_matrix) -> csr_matrix:
    matrix = csr_matrix(interactions)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return csr_matrix((np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr), matrix.shape)


def _most_active(degrees: np.ndarray) -> np.ndarray:
    return np.sort(np.argsort(-degrees, kind="stable")[:_FACTORISED])


def _some_columns(matrix: csr_matrix, columns: np.ndarray) -> csr_matrix:
    # a selection copies, even of all columns
    return matrix if len(columns) == matrix.shape[1] else matrix[:, columns]


def _damp(matrix: csr_matrix, left: np.ndarray, right: np.ndarray) -> csr_matrix:
    """``left`` times ``right`` wherever ``matrix`` has an entry; they share their indices."""
    values = np.repeat(left, np.diff(matrix.indptr))
    values *= right[matrix.indices]
    return csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)


def _shuffle(matrix: csr_matrix, seed: int) -> csr_matrix:
    """Random interactions, as many of each user and about as many of each item."""
    items = np.random.default_rng(seed).permutation(matrix.indices)
    shuffled = csr_matrix((matrix.data.copy(), items, matrix.indptr.copy()), matrix.shape)
    shuffled.sum_duplicates()
    shuffled.data[:] = 1
    return shuffled


def _varimax(loadings: Tensor, rotation: Tensor) -> Tensor:
    """The rotation (k, k) that maximises the variance of squared ``loadings`` (n, k), from ``rotation`` on."""
    before = 0.0
    # these take most of the memory of a start
    rotated, cubes = torch.empty_like(loadings), torch.empty_like(loadings)
    for _ in range(_MAX_ROTATIONS):
        torch.mm(loadings, rotation.to(loadings.dtype), out=rotated)
        torch.square(rotated, out=cubes)
        cubes.sub_(cubes.mean(0)).mul_(rotated)
        gradient = loadings.T @ cubes
        # only what goes through all rows is in single precision
        left, sizes, right = torch.linalg.svd(gradient.double())
        rotation, reached = left @ right, float(sizes.sum())
        if reached < before * (1 + 1e-5):
            break
        before = reached
    return rotation
