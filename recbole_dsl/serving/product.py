"""Models whose score is the product of a user's and an item's vector."""

from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.lists import Lists
from recbole_dsl.serving.propagation import MOST_LAYERS, propagated
from recbole_dsl.serving.scorer import Top
from recbole_dsl.serving.seen import Seen
from recbole_dsl.serving.tables import Table
from recbole_dsl.serving.top_k import ExactTopK

# what a model makes of the product
TRANSFORMS = ("none", "sigmoid")
# how much the length of a folded-in vector counts, relative to the mean of the items' products with each other;
# of those tried on ml-100k the best on the validation data
_RIDGE = 0.6
_MOST_COLUMNS = 2**12
# columns up to which histories are taken: to fold one in takes their third power
_MOST_FOR_HISTORIES = 2**10
# how much longer SciPy takes for the product of two entries than a dense product for that of two cells
_PER_PAIR = 200
# how many times the entries in the file the dense ones may be that are made of them
_MOST_TIMES = 1000


def load(artifact: Artifact) -> "ProductScorer":
    """The scorer of an artifact of the kind "product".

    Raises:
        DSLError: if its tables are none.
    """
    described = artifact.header["scorer"]
    users = Table.read(artifact, "product.users", artifact.header["n_users"], described.get("users"))
    items = Table.read(artifact, "product.items", artifact.header["n_items"], described.get("items"))
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


def _propagated(artifact: Artifact, users: Table, items: Table, weights: Any) -> tuple[Table, Table]:
    """The tables that a graph model makes of those in the file, dense."""
    is_right = isinstance(weights, list) and 1 <= len(weights) <= MOST_LAYERS + 1
    if not is_right or not all(type(weight) is float and abs(weight) <= 1e3 for weight in weights):
        artifact.refuse(f"propagation must be from 1 to {MOST_LAYERS + 1} numbers of at most 1000")
    seen = Seen.read(artifact)
    if seen.level == "none":
        artifact.refuse("must have seen items, along which vectors are propagated")
    if (users.n_rows + items.n_rows) * users.n_columns > _MOST_TIMES * (users.nnz + items.nnz):
        artifact.refuse("product.users and product.items have too few entries to be propagated")
    dense = (table.rows(0, table.n_rows).dense(table.n_columns) for table in (users, items))
    sides = propagated(*dense, seen.lists(np.arange(users.n_rows), "trained"), weights)
    full = (Table(len(side), side.shape[1], "fp32", "full", {"codes": side.reshape(-1)}) for side in sides)
    return tuple(full)


class ProductScorer:
    """A `Scorer` of two tables.

    Attributes:
        users: (n_users, n_columns).
        items: (n_items, n_columns).
        transform: one of `TRANSFORMS`, applied to the products; it changes no order.
        has_bias: whether the last column is the items' bias, and the same number for every user.
    """

    takes_users = True
    why_no_histories = f"as its vectors have more than {_MOST_FOR_HISTORIES} columns, too many to fold one in"
    batch_size = 1024

    def __init__(self, users: Table, items: Table, transform: str = "none", has_bias: bool = False):
        self.users, self.items, self.transform, self.has_bias = users, items, transform, has_bias
        self._lock = RLock()

    @property
    def takes_histories(self) -> bool:
        """Whether the vectors are so short that histories are folded in."""
        return self.items.n_columns <= _MOST_FOR_HISTORIES

    def prepare(self) -> None:
        """As `Scorer.prepare`."""
        self._by_product.prepare()
        self._by_cosine.prepare()
        if self.takes_histories:
            self.fold_in(Lists.of([[0]]))

    def top(
        self, users: NDArray[np.int64], k: int, exclude: Lists | None, candidates: NDArray[np.bool_] | None
    ) -> Top:
        """The best items for ``users`` (n,)."""
        return self._search(self.users.dense_rows(users), k, exclude, candidates)

    def top_for(
        self, histories: Lists, k: int, exclude: Lists | None, candidates: NDArray[np.bool_] | None
    ) -> Top:
        """The best items for users who had ``histories``."""
        return self._search(self.fold_in(histories), k, exclude, candidates)

    def similar(self, items: NDArray[np.int64], k: int, candidates: NDArray[np.bool_] | None) -> Top:
        """The items most like ``items`` (n,), by cosine."""
        vectors = self.items.dense_rows(items) * self._counts_as_likeness
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        queries = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        itself = Lists(np.arange(len(items) + 1), items)
        with self._lock:
            search = self._by_cosine
        return search.search(queries, k, itself, candidates)

    def fold_in(self, histories: Lists) -> NDArray[np.float32]:
        """(n, n_columns): the vectors of users who had ``histories``.

        Each is the least squares solution for products of 1 with the items that the user had and of 0 with all,
        as in alternating least squares (`implicit`'s ``recalculate_user``).
        """
        out = np.empty((histories.n, self.items.n_columns), np.float32)
        distinct, places = np.unique(histories.ids, return_inverse=True)
        vectors = self.items.dense_rows(distinct).astype(np.float64)
        n_free = self.items.n_columns - self.has_bias
        with self._lock:
            prior = self._prior
        bias = float(self.users.dense_rows(np.zeros(1, np.int64))[0, -1]) if self.has_bias else 0.0
        for user in range(histories.n):
            of_user = vectors[places[histories.offsets[user] : histories.offsets[user + 1]]]
            free = of_user[:, :n_free]
            wanted = 1 - bias * of_user[:, -1] if self.has_bias else np.ones(len(of_user))
            out[user, :n_free] = np.linalg.solve(prior[:n_free, :n_free] + free.T @ free, free.T @ wanted)
            out[user, n_free:] = bias
        return out

    # of the parts that are made when they are first needed, each once, however many threads need it
    @cached_property
    def _by_product(self) -> ExactTopK:
        entries = self.items.all_rows()
        return ExactTopK(entries.values, entries.columns, entries.offsets, self.items.n_columns)

    @cached_property
    def _by_cosine(self) -> ExactTopK:
        squares = np.empty(self.items.n_rows)
        for start, stop in self.items.blocks():
            entries = self.items.rows(start, stop).times_columns(self._counts_as_likeness)
            squares[start:stop] = np.bincount(entries.rows(), entries.values.astype(np.float64) ** 2, stop - start)
        return self._by_product.scaled((1 / np.sqrt(np.where(squares > 0, squares, 1))).astype(np.float32))

    @cached_property
    def _counts_as_likeness(self) -> NDArray[np.float32]:
        """(n_columns,): 1 for the columns of vectors, 0 for that of the bias."""
        return np.array([1] * (self.items.n_columns - self.has_bias) + [0] * self.has_bias, np.float32)

    @cached_property
    def _prior(self) -> NDArray[np.float64]:
        """What is added to the products of a history's vectors: those of all items, and a ridge."""
        n_columns = self.items.n_columns
        n_free = n_columns - self.has_bias
        gram = _gram(self.items)
        ridge = _RIDGE * np.trace(gram[:n_free, :n_free]) / n_free
        # a table of zeros has a solution too
        return gram + max(ridge, np.finfo(np.float32).tiny) * np.eye(n_columns)

    def _search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Lists | None,
        candidates: NDArray[np.bool_] | None,
    ) -> Top:
        with self._lock:
            search = self._by_product
        ids, scores = search.search(queries, k, exclude, candidates)
        if self.transform == "sigmoid":
            with np.errstate(over="ignore"):
                scores[ids >= 0] = 1 / (1 + np.exp(-scores[ids >= 0]))
        return ids, scores


def _gram(table: Table) -> NDArray[np.float64]:
    """(n_columns, n_columns): the products of a table's columns, by its entries where these are few."""
    n_columns = table.n_columns
    if _PER_PAIR * (np.diff(table.offsets) ** 2).sum() < table.n_rows * n_columns**2:
        # takes longer to load than most tables take
        from scipy.sparse import csr_array

        entries = table.all_rows()
        values = entries.values.astype(np.float64)
        matrix = csr_array((values, entries.columns, entries.offsets), (table.n_rows, n_columns))
        return (matrix.T @ matrix).toarray()
    gram = np.zeros((n_columns, n_columns))
    for start, stop in table.blocks(2**18):
        block = table.rows(start, stop).dense(n_columns).astype(np.float64)
        gram += block.T @ block
    return gram
