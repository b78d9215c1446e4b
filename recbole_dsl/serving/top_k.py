"""The items of the highest scores, exactly, where a score is the product of a query's and an item's vector."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recbole_dsl.compiling import compiled_loops
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.serving.item_lists import Bounds, ItemLists, build_lists
from recbole_dsl.serving.item_table import ItemTable, dense_table, sparse_table
from recbole_dsl.serving.lists import Lists
from recbole_dsl.serving.plain_top_k import search_plainly

if TYPE_CHECKING:
    from scipy.sparse import spmatrix

Found = tuple[NDArray[np.int64], NDArray[np.float32]]

# queries that are searched at once by one thread
_BATCH = 256
# items whose dense rows and scores are there at once: as many as stay in a processor's cache with their rows
_ITEMS = 2**13
# candidates of all items, up to which they are searched by themselves
_FEW = 1 / 16
# queries that are searched by lists before the rest may be by products
_TRIED = 8


class ExactTopK:
    """A table of items' vectors that gives the best ``k`` items of each query.

    The answer is that of brute force, to the bit: an item's score is the sum of its products with the query, exact
    in float64, added up in float64 by ascending columns and rounded to float32; the highest comes first, and of
    equal ones the smaller id. NumPy alone finds it until `prepare` is called, and where Numba is not there. From
    then on compiled loops do: inverted lists, or dense products where the table or the queries are dense and many.

    Lists take 6 bytes for each entry, and Numba 100 MB once in a process. It may be searched from several threads.
    """

    def __init__(self, values: NDArray[np.float32], columns: NDArray, row_offsets: NDArray, n_columns: int):
        """A sparse table, which is not copied and must not be changed.

        Args:
            values: (nnz,) float32, row by row.
            columns: (nnz,) integers from 0 to ``n_columns - 1``, ascending in each row.
            row_offsets: (n_items + 1,) integers, where each row begins.

        Raises:
            DSLError: if they do not fit each other, or a value is not finite.
        """
        self._hold(sparse_table(values, columns, row_offsets, n_columns))

    @classmethod
    def of_dense(cls, table: NDArray[np.float32]) -> "ExactTopK":
        """A dense ``table`` (n_items, n_columns) float32.

        Raises:
            DSLError: if it is none, or a value is not finite.
        """
        search = cls.__new__(cls)
        search._hold(dense_table(table))
        return search

    def _hold(self, table: ItemTable) -> None:
        self._table = table
        self._largest = table.largest()
        self._longest = int(np.diff(table.row_offsets).max(initial=0))
        # whose lists are this one's too
        self._unscaled = self
        self._lists: ItemLists | None = None
        self._bounds: Bounds | None = None
        # set last, when all that it works on is there
        self._compiled: ModuleType | None = None
        self._lock = Lock()

    @property
    def n_items(self) -> int:
        return self._table.n_items

    def scaled(self, factors: NDArray[np.float32]) -> "ExactTopK":
        """The same table with each item's vector multiplied by one of ``factors`` (n_items,), at least 0.

        Table and lists are this one's: it takes no memory but for the factors and the blocks' bounds.
        """
        search = self._with(replace(self._table, factors=np.ascontiguousarray(factors, np.float32)))
        search._unscaled = self
        return search

    def prepare(self) -> None:
        """Build the lists and compile, or load what was compiled, so that no search has to wait for either.

        Nothing without Numba, and nothing the second time. Searches may go on meanwhile.
        """
        with self._lock:
            if self._compiled is not None or (compiled := _compiled()) is None:
                return
            # compiled for the types of the arrays that they are called with, which a single row has too
            row = self._with(self._table.first_row())
            queries, margins = np.zeros((1, self._table.n_columns), np.float32), np.zeros(1, np.float32)
            if not self._table.is_dense:
                row._build()
                row._by_lists(compiled, queries, margins, 1, None, None)
                self._build()
            row._by_products(compiled, queries, margins, 1, None, None)
            self._compiled = compiled

    def _with(self, table: ItemTable) -> "ExactTopK":
        search = type(self).__new__(type(self))
        search._hold(table)
        return search

    def _build(self) -> None:
        self._unscaled._lists = self._lists = self._unscaled._lists or build_lists(self._table)
        self._bounds = self._lists.bounds(self._table.factors)

    def search(
        self,
        queries: "NDArray[np.float32] | spmatrix",
        k: int,
        exclude: "tuple[ArrayLike, ArrayLike] | spmatrix | None" = None,
        candidates: ArrayLike | None = None,
        threads: int = 1,
    ) -> Found:
        """The best ``k`` items for each of ``queries``.

        Args:
            queries: (n, n_columns) float32, dense or sparse.
            k: at least 1; may be more than there are items.
            exclude: what each query does not get: sparse (n, n_items), or offsets (n + 1,) and ids, as in `Lists`,
                ascending for each query.
            candidates: what there is for all queries: ids, or (n_items,) bool. None for all items.
            threads: how many share the queries.

        Returns:
            ids (n, k) int64 and scores (n, k) float32, -1 and -inf where fewer than ``k`` items remain.

        Raises:
            DSLError: if an argument is of the wrong shape or out of range, a query is not finite, or so large that
                its scores may not fit into float32.
        """
        if not _is_count(k):
            raise refusal("k", k, "an integer of at least 1")
        if not _is_count(threads):
            raise refusal("threads", threads, "an integer of at least 1")
        n = self._check_queries(queries)
        left_out = _lists_of(exclude, n, self.n_items)
        chosen = _ids_of(candidates, self.n_items)
        way = self._way(chosen)

        def search_part(part: slice) -> Found:
            vectors = queries[part].toarray() if _is_sparse(queries) else queries[part]
            vectors = np.require(vectors, np.float32, "CAW")
            excluded = left_out and left_out.between(part.start, part.stop)
            if vectors.any(1).all():
                return way(vectors, self._margins(vectors), k, excluded)
            permitted = np.arange(self.n_items) if chosen is None else chosen
            return _with_zeros(way, vectors, self._margins(vectors), k, excluded, permitted)

        parts = [slice(first, min(first + _BATCH, n)) for first in range(0, n, _BATCH)] or [slice(0, 0)]
        if threads > 1 and n > 1:
            each = min(_BATCH, -(-n // threads))
            parts = [slice(first, min(first + each, n)) for first in range(0, n, each)]
            with ThreadPoolExecutor(threads) as pool:
                return _joined(pool.map(search_part, parts), n, k)
        return _joined(map(search_part, parts), n, k)

    def _way(self, chosen: NDArray[np.int64] | None) -> Callable[..., Found]:
        table, allowed = self._table, None
        if chosen is not None and len(chosen) <= _FEW * table.n_items:
            few = table.take(chosen)
            return lambda vectors, margins, k, left_out: _among(few, chosen, table, vectors, margins, k, left_out)
        if chosen is not None:
            allowed = np.zeros(table.n_items, np.bool_)
            allowed[chosen] = True
        if (compiled := self._compiled) is None:
            return lambda *rest: search_plainly(table, *rest, allowed)
        by = self._by_products if table.is_dense else self._by_the_faster
        return lambda *rest: by(compiled, *rest, allowed)

    def _by_the_faster(self, compiled, queries, margins, k, exclude, allowed) -> Found:
        first = queries[:_TRIED], margins[:_TRIED], k, exclude and exclude.between(0, _TRIED), allowed
        ids, scores, visited = self._by_lists(compiled, *first)
        if len(queries) <= _TRIED:
            return ids, scores
        rest = queries[_TRIED:], margins[_TRIED:], k, exclude and exclude.between(_TRIED, exclude.n), allowed
        if _products_are_faster(self._table.density, rest[0], visited):
            others = self._by_products(compiled, *rest)
        else:
            others = self._by_lists(compiled, *rest)[:2]
        return np.concatenate([ids, others[0]]), np.concatenate([scores, others[1]])

    def _by_lists(self, compiled, queries, margins, k, exclude, allowed) -> tuple[NDArray, NDArray, float]:
        """What was found, and which share of the blocks was visited."""
        lists, bounds, table = self._lists, self._bounds, self._table
        ids, scores = _heaps(len(queries), k)
        visited = compiled.search_lists(
            queries, margins, *_arrays(exclude, allowed),
            *_rows(table), lists.items, lists.offsets, lists.places, lists.values, lists.block, *bounds,
            ids, scores,
        )  # fmt: skip
        return ids, scores, visited / max(1, len(queries) * bounds.highest.shape[1])

    def _by_products(self, compiled, queries, margins, k, exclude, allowed) -> Found:
        table = self._table
        ids, scores = _heaps(len(queries), k)
        compiled.empty_heaps(ids, scores)
        for first in range(0, table.n_items, _ITEMS):
            stop = min(first + _ITEMS, table.n_items)
            rough = queries @ table.dense_rows(first, stop).T
            if table.factors is not None:
                rough *= table.factors[first:stop]
            compiled.offer_scores(
                rough, first, queries, margins, *_arrays(exclude, allowed), *_rows(table), ids, scores
            )
        compiled.sort_heaps(ids, scores)
        return ids, scores

    def _check_queries(self, queries) -> int:
        is_matrix = _is_sparse(queries) or isinstance(queries, np.ndarray)
        if not is_matrix or queries.ndim != 2 or queries.shape[1] != self._table.n_columns:
            raise refusal("queries", getattr(queries, "shape", queries), f"(n, {self._table.n_columns})")
        if queries.dtype != np.float32:
            raise refusal("queries", queries.dtype, "float32")
        if not np.isfinite(queries.data if _is_sparse(queries) else queries).all():
            raise DSLError("queries: must be finite")
        return queries.shape[0]

    def _margins(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,): by how much a sum in float32 may miss the exact score of any item, or the bound of any block."""
        most = np.abs(vectors).sum(1, dtype=np.float64) * self._largest
        if (most >= np.finfo(np.float32).max / 4).any():
            raise DSLError("queries: are so large that scores may not fit into float32")
        # each product and each addition rounds once, and so do the score, the margin and what it is added to; the
        # last term is for what is too small to be rounded in proportion
        roundings = min(self._longest, vectors.shape[1]) + 8
        return (most * roundings * 2.0**-24 * 1.01 + 1e-37).astype(np.float32)


def _with_zeros(
    way: Callable[..., Found],
    vectors: NDArray[np.float32],
    margins: NDArray[np.float32],
    k: int,
    left_out: Lists | None,
    permitted: NDArray[np.int64],
) -> Found:
    """Search ``way``, but for queries of zeros, with which all items tie: they get the first of ``permitted``."""
    is_zero = ~vectors.any(1)
    ids, scores = np.full((len(vectors), k), -1), np.full((len(vectors), k), -np.inf, np.float32)
    others = np.flatnonzero(~is_zero)
    if len(others):
        rest = vectors[others], margins[others], k, left_out and left_out.take(others)
        ids[others], scores[others] = way(*rest)
    for query in np.flatnonzero(is_zero):
        excluded = left_out.between(query, query + 1).ids if left_out else np.zeros(0, np.int64)
        first = permitted[: k + len(excluded)]
        first = first[~np.isin(first, excluded)][:k]
        ids[query, : len(first)], scores[query, : len(first)] = first, 0
    return ids, scores


def _products_are_faster(density: float, queries: NDArray[np.float32], visited: float) -> bool:
    """Whether ``queries`` (n, n_columns) are, where lists of like ones visited this share of the blocks.

    Measured on random and trained tables of densities 0.1 to 0.6, 200,000 items and 64 columns, with queries of
    densities 0.1 to 1, 1 to 256 at once, in ms a query on one thread. Products pay for making the rows dense once.
    """
    alive = np.count_nonzero(queries) / queries.size
    by_products = (0.55 + (4 + 30 * density) / len(queries)) * max(1, queries.shape[1] / 64)
    by_lists = visited * (0.3 + 25 * density * alive)
    return by_products < by_lists


def _compiled() -> ModuleType | None:
    return compiled_loops("recbole_dsl.serving.compiled_top_k")


def _among(
    few: ItemTable,
    chosen: NDArray[np.int64],
    table: ItemTable,
    vectors: NDArray[np.float32],
    margins: NDArray[np.float32],
    k: int,
    left_out: Lists | None,
) -> Found:
    """Search the items ``chosen`` (m,), ascending, whose rows are ``few``."""
    if left_out is not None:
        place = np.full(table.n_items, -1)
        place[chosen] = np.arange(len(chosen))
        places = place[left_out.ids]
        kept = places >= 0
        counts = np.bincount(left_out.owners()[kept], minlength=left_out.n)
        left_out = Lists(np.append(0, counts.cumsum()), places[kept])
    ids, scores = search_plainly(few, vectors, margins, k, left_out, None)
    if len(chosen):
        ids = np.where(ids < 0, -1, chosen[ids])
    return ids, scores


def _lists_of(exclude, n: int, n_items: int) -> Lists | None:
    if exclude is None:
        return None
    if _is_sparse(exclude):
        if exclude.shape != (n, n_items):
            raise refusal("exclude", exclude.shape, f"({n}, {n_items})")
        exclude = exclude.tocsr()
        if not exclude.has_sorted_indices:
            exclude = exclude.sorted_indices()
        offsets, ids = exclude.indptr, exclude.indices
    else:
        offsets, ids = map(np.asarray, exclude)
    offsets, ids = offsets.astype(np.int64, copy=False), ids.astype(np.int64, copy=False)
    if offsets.shape != (n + 1,) or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
        raise refusal("exclude", f"offsets of {offsets.shape}", f"({n + 1},), ascending from 0 to {len(ids)}")
    if len(ids) and (ids.min() < 0 or ids.max() >= n_items):
        raise refusal("exclude", f"{ids.min()}..{ids.max()}", f"ids from 0 to {n_items - 1}")
    lists = Lists(offsets, ids)
    if len(ids) and (np.diff(lists.owners() * n_items + ids) < 0).any():
        raise DSLError("exclude: ids must ascend for each query")
    return lists


def _ids_of(candidates: ArrayLike | None, n_items: int) -> NDArray[np.int64] | None:
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


def _arrays(exclude: Lists | None, allowed: NDArray[np.bool_] | None) -> tuple[NDArray, NDArray, NDArray]:
    nothing = np.zeros(0, np.int64)
    # arrays that may not be written to are of another type to Numba
    offsets, ids = (nothing, nothing) if exclude is None else (np.require(a, None, "CAW") for a in exclude)
    return offsets, ids, np.zeros(0, np.bool_) if allowed is None else allowed


def _rows(table: ItemTable) -> tuple[NDArray, ...]:
    factors = np.zeros(0, np.float32) if table.factors is None else table.factors
    return table.values, table.columns, table.row_offsets, factors


def _heaps(n: int, k: int) -> Found:
    return np.empty((n, k), np.int64), np.empty((n, k), np.float32)


def _joined(parts: Iterable[Found], n: int, k: int) -> Found:
    ids, scores = _heaps(n, k)
    first = 0
    for some_ids, some_scores in parts:
        stop = first + len(some_ids)
        ids[first:stop], scores[first:stop] = some_ids, some_scores
        first = stop
    return ids, scores


def _is_sparse(matrix) -> bool:
    # without loading SciPy for it
    return hasattr(matrix, "tocsr")


def _is_count(number) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= 1
