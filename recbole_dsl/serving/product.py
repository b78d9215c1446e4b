"""Models whose score is the product of a user's and an item's vector."""

from collections.abc import Iterator
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask
from recbole_dsl.serving.folding import fold_in, prior_of
from recbole_dsl.serving.new_items import folding_by, item_scale, new_vectors, with_rows
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.propagation import MOST_LAYERS, propagated
from recbole_dsl.serving.top_k import ExactTopK
from recbole_dsl.serving.top_k_numpy import Found
from recbole_dsl.serving.user_histories import UserHistories

# what a model applies to the product
TRANSFORMS = ("none", "sigmoid")
_MOST_COLUMNS = 2**12
# columns up to which histories are taken, as folding one in takes their third power
_MOST_FOR_HISTORIES = 2**10
# how many dense values may be made of each entry in the file
_MOST_TIMES = 1000


def load(artifact: Artifact, model_class: type | None = None) -> "ProductScorer":
    """The scorer of an artifact of the kind "product"; it needs no ``model_class``.

    Raises:
        DSLError: if its tables make no sense.
    """
    described = artifact.header["scorer"]
    users, items = (
        PackedTable.read(artifact, f"product.{side}", artifact.header[f"n_{side}"], described.get(side))
        for side in ("users", "items")
    )
    if users.n_columns != items.n_columns:
        artifact.refuse(f"product.users has {users.n_columns} columns, product.items {items.n_columns}")
    transform, has_bias = described.get("transform"), described.get("has_bias")
    if transform not in TRANSFORMS:
        artifact.refuse(f"transform must be one of {', '.join(TRANSFORMS)}")
    if not isinstance(has_bias, bool) or (has_bias and items.n_columns < 2):
        artifact.refuse("has_bias must be true or false, and leave a column for the vectors")
    if users.n_columns > _MOST_COLUMNS:
        artifact.refuse(f"product.users must have at most {_MOST_COLUMNS} columns")
    if described.get("propagation") is not None:
        users, items = _propagated(artifact, users, items, described["propagation"])
    return ProductScorer(users, items, transform, has_bias)


def _propagated(artifact: Artifact, users: PackedTable, items: PackedTable, weights: Any) -> Iterator[PackedTable]:
    """The dense tables that a graph model makes of those in the file."""
    is_right = isinstance(weights, list) and 1 <= len(weights) <= MOST_LAYERS + 1
    if not is_right or not all(type(weight) is float and abs(weight) <= 1e3 for weight in weights):
        artifact.refuse(f"propagation must be from 1 to {MOST_LAYERS + 1} numbers of at most 1000")
    histories = UserHistories.read(artifact)
    if histories.level == "none":
        artifact.refuse("must have seen items, along which vectors are propagated")
    if (users.n_rows + items.n_rows) * users.n_columns > _MOST_TIMES * (users.nnz + items.nnz):
        artifact.refuse("product.users and product.items have too few entries to be propagated")
    dense = (table.rows(0, table.n_rows).dense() for table in (users, items))
    sides = propagated(*dense, histories.lists(np.arange(users.n_rows), "trained"), weights)
    return (PackedTable.of(CSR.of_full(side), "fp32") for side in sides)


class ProductScorer:
    """A `Scorer` of two tables.

    Attributes:
        users: (n_users, n_columns).
        items: (n_items, n_columns).
        transform: one of `TRANSFORMS`, applied to the products; it changes no order.
        has_bias: whether the last column is the items' bias, with one and the same number for every user.
    """

    takes_users = True
    why_no_histories = f"as its vectors have more than {_MOST_FOR_HISTORIES} columns, too many to fold one in"
    why_no_items = why_no_histories
    batch_size = 1024

    def __init__(self, users: PackedTable, items: PackedTable, transform: str = "none", has_bias: bool = False):
        self.users, self.items, self.transform, self.has_bias = users, items, transform, has_bias
        # the columns of the vectors, without that of the bias
        self._n_free = items.n_columns - has_bias
        # of vectors of new items, made when there are any
        self._scale: NDArray[np.float64] | None = None
        # each part is made when it is first needed, once, however many threads need it
        self._lock = RLock()

    @property
    def takes_histories(self) -> bool:
        """Whether the vectors are short enough for histories to be folded in."""
        return self.items.n_columns <= _MOST_FOR_HISTORIES

    @property
    def takes_items(self) -> bool:
        """The same for items that came after training."""
        return self.takes_histories

    def prepare(self) -> None:
        self._by_product.prepare()
        self._by_cosine.prepare()
        if self.takes_histories:
            self.fold_in(CSR.of_lists([[0]]))

    def top(self, users: Ids, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        return self._search(self.users.dense_rows(users), k, exclude, candidates)

    def top_for(self, histories: CSR, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        return self._search(self.fold_in(histories), k, exclude, candidates)

    def similar(self, items: Ids, k: int, candidates: Mask | None) -> Found:
        vectors = self.items.dense_rows(items)
        vectors[:, self._n_free :] = 0
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        with self._lock:
            search = self._by_cosine
        return search.search(queries, k, CSR(np.arange(len(items) + 1), items), candidates)

    def fold_in(self, histories: CSR) -> Floats:
        """(n, n_columns) the vectors of users with ``histories``, by least squares on the items' vectors."""
        with self._lock:
            prior = self._prior
        bias = float(self.users.dense_rows(np.zeros(1, np.int64))[0, -1]) if self.has_bias else None
        return fold_in(self.items.dense_rows, prior, histories, bias)

    def with_items(self, lists: CSR, trained: CSR) -> "ProductScorer":
        # without the lock, so that no request waits
        fold = folding_by(self.users)
        if self._scale is None:
            self._scale = item_scale(fold, self.items, trained)
        items = with_rows(self.items, new_vectors(fold, self._scale, lists))
        other = ProductScorer(self.users, items, self.transform, self.has_bias)
        # so that it makes no difference which of the new items came first
        other._scale = self._scale
        return other

    @cached_property
    def _by_product(self) -> ExactTopK:
        return ExactTopK.of_table(self.items.all_rows())

    @cached_property
    def _by_cosine(self) -> ExactTopK:
        squares = np.empty(self.items.n_rows)
        for start, stop in self.items.blocks():
            rows = self.items.rows(start, stop)
            entries = np.where(rows.column_of_entry() < self._n_free, rows.values.astype(np.float64) ** 2, 0)
            squares[start:stop] = np.bincount(rows.row_of_entry(), entries, stop - start)
        return self._by_product.scaled((1 / np.sqrt(np.where(squares > 0, squares, 1))).astype(np.float32))

    @cached_property
    def _prior(self) -> NDArray[np.float64]:
        return prior_of(self.items, self._n_free)

    def _search(self, queries: Floats, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        with self._lock:
            search = self._by_product
        ids, scores = search.search(queries, k, exclude, candidates)
        if self.transform == "sigmoid":
            with np.errstate(over="ignore"):
                scores[ids >= 0] = 1 / (1 + np.exp(-scores[ids >= 0]))
        return ids, scores
