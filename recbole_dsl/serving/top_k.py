"""The items with the highest scores, exactly, where a score is the product of a query's and an item's vector."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask, checked_dense, checked_matrix
from recbole_dsl.serving.inverted_index import Bounds, InvertedIndex, build_index
from recbole_dsl.serving.top_k_numpy import Found, search_by_numpy

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

# queries that one thread searches at once, for all of which a row is made dense once
_BATCH = 2048
# items whose dense rows are multiplied at once, and scores held at once, to stay in the processor's cache
_ITEMS, _SCORES = 2**13, 2**21
# columns up to which a block of the index is made dense: 8 MB
_WIDEST = 2**12
# the share of items up to which candidates are searched in a table of their own
_FEW = 1 / 16
# queries that are searched by the index before the rest may be searched another way
_TRIED = 8


class ExactTopK:
    """A table of items' vectors that gives the best ``k`` items for each query.

    The answer is that of brute force, to the bit: an item's score is the sum of its products with the query, exact
    in float64, added in float64 by ascending columns and rounded to float32; the highest comes first, and of equal
    ones the smaller id. NumPy alone finds it until `prepare` is called, and where Numba is not installed. After
    that compiled loops do. They go by the blocks of an inverted index, which they make dense if there are many
    queries. They go by dense products if the table or the queries are dense.

    The index takes 6 bytes for each entry, and Numba 100 MB once in a process. Several threads may search at once.
    """

    def __init__(self, values: Floats, columns: NDArray, row_offsets: NDArray, n_columns: int):
        """A sparse table, which is not copied and must not be changed.

        Args:
            values: (nnz,) float32, row by row.
            columns: (nnz,) integers from 0 to ``n_columns - 1``, ascending in each row.
            row_offsets: (n_items + 1,) integers, where each row begins.

        Raises:
            DSLError: if they do not fit each other, or a value is not finite.
        """
        self._hold(checked_matrix(values, columns, row_offsets, n_columns))

    @classmethod
    def of_dense(cls, table: Floats) -> "ExactTopK":
        """A dense ``table`` (n_items, n_columns) float32.

        Raises:
            DSLError: if it is none, or a value is not finite.
        """
        return cls.of_table(checked_dense(table))

    @classmethod
    def of_table(cls, table: CSR) -> "ExactTopK":
        """A ``table`` that is known to be right: contiguous arrays, finite values, ascending columns."""
        search = cls.__new__(cls)
        search._hold(table)
        return search

    def _hold(self, table: CSR) -> None:
        self._table = table
        self._largest = _largest_magnitude(table)
        self._longest = int(table.lengths.max(initial=0))
        # the search whose index is shared
        self._unscaled = self
        self._index: InvertedIndex | None = None
        self._bounds: Bounds | None = None
        # set last, when all that it works on is there
        self._compiled: ModuleType | None = None
        self._lock = Lock()

    @property
    def n_items(self) -> int:
        return self._table.n_rows

    def scaled(self, factors: Floats) -> "ExactTopK":
        """The same table with each item's vector multiplied by one of ``factors`` (n_items,), at least 0.

        It shares the table and the index, so it takes memory only for the factors and the blocks' bounds.
        """
        search = self.of_table(replace(self._table, factors=np.ascontiguousarray(factors, np.float32)))
        search._unscaled = self
        return search

    def prepare(self) -> None:
        """Build the index and compile, or load what was compiled, so that no search has to wait for either.

        Does nothing without Numba, nor the second time. Searches may go on meanwhile.
        """
        with self._lock:
            if self._compiled is not None or (compiled := _compiled()) is None:
                return
            # compiles for the types of the arrays, which a table of one row has too
            row = self.of_table(self._table.between(0, 1))
            queries, margins = np.zeros((1, self._table.n_columns), np.float32), np.zeros(1, np.float32)
            if not self._table.is_full:
                row._build()
                row._by_index(compiled, queries, margins, 1, None, None)
                row._by_blocks(compiled, queries, margins, 1, None, None)
                self._build()
            row._by_products(compiled, queries, margins, 1, None, None)
            self._compiled = compiled

    def _build(self) -> None:
        self._unscaled._index = self._index = self._unscaled._index or build_index(self._table)
        self._bounds = self._index.bounds(self._table.factors)

    def search(
        self,
        queries: "Floats | spmatrix",
        k: int,
        exclude: "CSR | tuple[ArrayLike, ArrayLike] | spmatrix | None" = None,
        candidates: ArrayLike | None = None,
        threads: int = 1,
    ) -> Found:
        """The best ``k`` items for each of ``queries``.

        Args:
            queries: (n, n_columns) float32, dense or sparse.
            k: at least 1; may be more than there are items.
            exclude: what each query does not get: sparse (n, n_items), n lists, or their offsets (n + 1,) and ids,
                ascending for each query.
            candidates: what there is for all queries: ids, or (n_items,) bool. None for all items.
            threads: how many share the queries.

        Returns:
            ids (n, k) int64 and scores (n, k) float32, -1 and -inf where fewer than ``k`` items remain.

        Raises:
            DSLError: if an argument is of the wrong shape or out of range, a query is not finite, or so large that
                its scores may not fit into float32.
        """
        for name, count in (("k", k), ("threads", threads)):
            if not isinstance(count, (int, np.integer)) or isinstance(count, bool) or count < 1:
                raise refusal(name, count, "an integer of at least 1")
        n = self._check_queries(queries)
        left_out = _lists_of(exclude, n, self.n_items)
        chosen = _ids_of(candidates, self.n_items)
        way = _zeros_apart(self._way(chosen), np.arange(self.n_items) if chosen is None else chosen)
        ids, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)

        def search_part(first: int) -> None:
            here = slice(first, min(first + size, n))
            vectors = queries[here].toarray() if _is_sparse(queries) else queries[here]
            vectors = np.require(vectors, np.float32, "CAW")
            excluded = left_out and left_out.between(here.start, here.stop)
            ids[here], scores[here] = way(vectors, self._margins(vectors), k, excluded)

        size = max(1, min(_BATCH, -(-n // threads)))
        if threads > 1 and n > 1:
            with ThreadPoolExecutor(threads) as pool:
                # raises what a part raised
                list(pool.map(search_part, range(0, n, size)))
        else:
            for first in range(0, n, size):
                search_part(first)
        return ids, scores

    def _way(self, chosen: Ids | None) -> Callable[..., Found]:
        table, allowed = self._table, None
        if chosen is not None and len(chosen) <= _FEW * table.n_rows:
            few = table.take(chosen)
            return lambda *rest: search_by_numpy(few, *rest, items=chosen)
        if chosen is not None:
            allowed = np.zeros(table.n_rows, np.bool_)
            allowed[chosen] = True
        if (compiled := self._compiled) is None:
            return lambda *rest: search_by_numpy(table, *rest, allowed)
        by = self._by_products if table.is_full else self._by_the_faster
        return lambda *rest: by(compiled, *rest, allowed)

    def _by_the_faster(self, compiled, queries, margins, k, exclude, allowed) -> Found:
        first = queries[:_TRIED], margins[:_TRIED], k, exclude and exclude.between(0, _TRIED), allowed
        ids, scores, visited = self._by_index(compiled, *first)
        if len(queries) <= _TRIED:
            return ids, scores
        rest = queries[_TRIED:], margins[_TRIED:], k, exclude and exclude.between(_TRIED, exclude.n_rows), allowed
        ways = {"index": self._by_index, "blocks": self._by_blocks, "products": self._by_products}
        others = ways[_fastest(self._table.density, rest[0], visited)](compiled, *rest)
        return np.concatenate([ids, others[0]]), np.concatenate([scores, others[1]])

    def _by_index(self, compiled, queries, margins, k, exclude, allowed) -> tuple[NDArray, NDArray, float]:
        """What was found, and the share of the blocks that was visited."""
        ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        arrays = *_arrays(exclude, allowed), *self._arrays(), *self._index.arrays()
        visited = compiled.search_index(queries, margins, *arrays, *self._bounds, ids, scores)
        return ids, scores, visited / max(1, len(queries) * self._bounds.highest.shape[1])

    def _by_blocks(self, compiled, queries, margins, k, exclude, allowed) -> Found:
        bounds, arrays = self._bounds, (*_arrays(exclude, allowed), *self._arrays(), *self._index.arrays())
        ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        # those with high bounds first, so that fewer of the others are reached
        order = np.argsort(-np.maximum(bounds.highest, -bounds.lowest).sum(0, dtype=np.float64))
        compiled.search_blocks(queries, margins, *arrays, *bounds, order, ids, scores)
        return ids, scores

    def _by_products(self, compiled, queries, margins, k, exclude, allowed) -> Found:
        table = self._table
        ids, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        compiled.empty_heaps(ids, scores)
        height = min(_ITEMS, max(1, _SCORES // len(queries)))
        for first in range(0, table.n_rows, height):
            stop = min(first + height, table.n_rows)
            rough = queries @ table.dense(first, stop).T
            if table.factors is not None:
                rough *= table.factors[first:stop]
            compiled.offer_scores(
                rough, first, queries, margins, *_arrays(exclude, allowed), *self._arrays(), ids, scores
            )
        compiled.sort_heaps(ids, scores)
        return ids, scores

    def _arrays(self) -> tuple[NDArray, ...]:
        table = self._table
        factors = np.zeros(0, np.float32) if table.factors is None else table.factors
        return table.values, table.columns, table.offsets, factors

    def _check_queries(self, queries) -> int:
        is_matrix = _is_sparse(queries) or isinstance(queries, np.ndarray)
        if not is_matrix or queries.ndim != 2 or queries.shape[1] != self._table.n_columns:
            raise refusal("queries", getattr(queries, "shape", queries), f"(n, {self._table.n_columns})")
        if queries.dtype != np.float32:
            raise refusal("queries", queries.dtype, "float32")
        if not np.isfinite(queries.data if _is_sparse(queries) else queries).all():
            raise DSLError("queries: must be finite")
        return queries.shape[0]

    def _margins(self, vectors: Floats) -> Floats:
        """(n,) by how much a sum in float32 may miss the exact score of any item, or the bound of any block."""
        most = np.abs(vectors).sum(1, dtype=np.float64) * self._largest
        if (most >= np.finfo(np.float32).max / 4).any():
            raise DSLError("queries: are so large that scores may not fit into float32")
        # each product and each addition rounds once, and so do the score, the margin and their sum; the last term
        # is for what is too small to be rounded in proportion
        roundings = min(self._longest, vectors.shape[1]) + 8
        return (most * roundings * 2.0**-24 * 1.01 + 1e-37).astype(np.float32)


def _zeros_apart(way: Callable[..., Found], permitted: Ids) -> Callable[..., Found]:
    """``way``, but for queries of zeros, for which all items tie: they get the first of ``permitted``."""

    def search(vectors: Floats, margins: Floats, k: int, exclude: CSR | None) -> Found:
        is_zero = ~vectors.any(1)
        if not is_zero.any():
            return way(vectors, margins, k, exclude)
        ids, scores = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf, np.float32)
        others = np.flatnonzero(~is_zero)
        if len(others):
            ids[others], scores[others] = way(
                vectors[others], margins[others], k, exclude and exclude.take(others)
            )
        for query in np.flatnonzero(is_zero):
            left_out = exclude.between(query, query + 1).columns if exclude else np.zeros(0, np.int64)
            first = permitted[: k + len(left_out)]
            first = first[~np.isin(first, left_out)][:k]
            ids[query, : len(first)], scores[query, : len(first)] = first, 0
        return ids, scores

    return search


def _largest_magnitude(table: CSR) -> float:
    """The largest magnitude of an entry, multiplied by its row's factor."""
    if table.factors is None:
        return float(max(table.values.max(initial=0), -table.values.min(initial=0)))
    largest = 0.0
    for first in range(0, table.n_rows, _ITEMS):
        rows = table.between(first, first + _ITEMS)
        scaled = np.abs(rows.values) * np.repeat(rows.factors, rows.lengths)
        largest = max(largest, float(scaled.max(initial=0)))
    return largest


def _fastest(density: float, queries: Floats, visited: float) -> str:
    """The way that searches ``queries`` (n, n_columns) fastest, if the index visits a share of its blocks.

    Measured on tables drawn at random and trained, of densities 0.1 and 0.3 and 64 or 128 columns, with queries of
    densities 0.1 to 1, 8 to 1024 at once, in ms a query and 200,000 items on one thread. All ways but the index
    pay for making rows dense once.
    """
    n, n_columns = queries.shape
    alive, width = np.count_nonzero(queries) / queries.size, n_columns / 64
    costs = {
        "index": visited * (0.3 + 25 * density * alive),
        "blocks": 0.03 + visited * (0.1 + 0.9 * alive * width) + (1 + 25 * density) / n * width,
        "products": (0.55 + (15 + 40 * density) / n) * max(1, width),
    }
    if n_columns > _WIDEST:
        del costs["blocks"]
    return min(costs, key=costs.__getitem__)


def _compiled() -> ModuleType | None:
    return compiled_loops("recbole_dsl.serving.top_k_compiled")


def _lists_of(exclude, n: int, n_items: int) -> CSR | None:
    if exclude is None:
        return None
    if _is_sparse(exclude):
        if exclude.shape != (n, n_items):
            raise refusal("exclude", exclude.shape, f"({n}, {n_items})")
        exclude = exclude.tocsr()
        if not exclude.has_sorted_indices:
            exclude = exclude.sorted_indices()
        exclude = exclude.indptr, exclude.indices
    elif isinstance(exclude, CSR):
        exclude = exclude.offsets, exclude.columns
    offsets, ids = (np.asarray(part).astype(np.int64, copy=False) for part in exclude)
    if offsets.shape != (n + 1,) or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
        raise refusal("exclude", f"offsets of {offsets.shape}", f"({n + 1},), ascending from 0 to {len(ids)}")
    if len(ids) and (ids.min() < 0 or ids.max() >= n_items):
        raise refusal("exclude", f"{ids.min()}..{ids.max()}", f"ids from 0 to {n_items - 1}")
    lists = CSR(offsets, ids)
    if len(ids) and (np.diff(lists.row_of_entry() * n_items + ids) < 0).any():
        raise DSLError("exclude: ids must ascend for each query")
    return lists


def _ids_of(candidates: ArrayLike | None, n_items: int) -> Ids | None:
    if candidates is None:
        return None
    candidates = np.asarray(candidates)
    if candidates.dtype == np.bool_:
        if candidates.shape != (n_items,):
            raise refusal("candidates", candidates.shape, f"({n_items},) where they are bool")
        return np.flatnonzero(candidates)
    if candidates.ndim != 1 or (candidates.size and candidates.dtype.kind not in "iu"):
        raise refusal("candidates", f"{candidates.dtype} of {candidates.ndim} dimensions", "ids, or bool")
    ids = np.unique(candidates).astype(np.int64)
    if len(ids) and (ids[0] < 0 or ids[-1] >= n_items):
        raise refusal("candidates", f"{ids[0]}..{ids[-1]}", f"ids from 0 to {n_items - 1}")
    return ids


def _arrays(exclude: CSR | None, allowed: Mask | None) -> tuple[NDArray, NDArray, NDArray]:
    nothing = np.zeros(0, np.int64)
    lists = (nothing, nothing) if exclude is None else (exclude.offsets, exclude.columns)
    # Numba takes arrays that may not be written to for another type
    offsets, ids = (np.require(array, None, "CAW") for array in lists)
    return offsets, ids, np.zeros(0, np.bool_) if allowed is None else allowed


def _is_sparse(matrix) -> bool:
    # without loading SciPy for it
    return hasattr(matrix, "tocsr")
