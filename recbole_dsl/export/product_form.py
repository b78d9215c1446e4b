"""Whether a model's score is the product of a user's and an item's vector: found by computing, not by its name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from logging import getLogger

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.utils import ModelType
from torch import Tensor, nn

from recbole_dsl.errors import described
from recbole_dsl.serving.entries import Entries
from recbole_dsl.serving.lists import Lists
from recbole_dsl.serving.propagation import layer_weights
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.weight import SparseWeight

# users whose scores are compared; those that a solution is computed from, for each column; those scored at once
_SAMPLE, _PER_COLUMN, _BATCH = 16, 4, 256
# what a score may be off, as float32 adds up in another order: relative to how they differ, and to the largest
_OF_SPREAD, _OF_SIZE = 1e-4, 2e-6
# beyond it a sigmoid in float32 does not tell what it was made from
_SATURATED = 1e-3

Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class ProductForm:
    """Vectors of which the products are a model's scores.

    Attributes:
        users: (n_users, n_columns) of the users without padding.
        items: (n_items, n_columns).
        transform: "none", or "sigmoid" where that is applied to the products.
        has_bias: whether the last column is the items' bias.
    """

    users: Entries
    items: Entries
    n_columns: int
    transform: str
    has_bias: bool


@dataclass(frozen=True)
class _Vectors:
    """Rows of a model's tensor, and the entries of it where few are there."""

    dense: NDArray[np.float32]
    entries: Entries


def product_form(model: AbstractRecommender, n_users: int, n_items: int) -> ProductForm | None:
    """The vectors that make the scores of ``model``, or None if there are none.

    Every pair of tensors with a row for each user and each item is tried: as it is, with items of length 1, with a
    weight for each column, with a bias for each item, and through a sigmoid. Then one of them is solved for, given
    the other. What is found gives the model's ``full_sort_predict`` for users that it was not found with.

    Args:
        n_users: without padding, as ``n_items``.
    """
    # of the class, as SGL has an option of that name
    kind = type(model).type
    if isinstance(model, AutoEncoderMixin) or kind not in (ModelType.GENERAL, ModelType.KNOWLEDGE):
        # these score by what a user had, which a table of users does not show
        return None
    scores = scores_of(model, n_items)
    users = _spread(n_users, 2 * _SAMPLE)
    try:
        wanted, again = scores(users), scores(users)
    except Exception as error:
        # a model of anyone's own may want other data than users
        getLogger().info(f"not a product of vectors, as it is: {described(error)}")
        return None
    if wanted.shape != (len(users), n_items) or not np.isfinite(wanted).all() or (wanted != again).any():
        return None
    with torch.no_grad():
        of_users, of_items = list(_candidates(model, n_users)), list(_candidates(model, n_items))
    half, of_half = users[::2], wanted[::2]
    found = _of_pairs(of_users, of_items, half, of_half)
    solved = _solved(scores, of_users, of_items, n_users, half, of_half)
    return next((form for form in chain(found, solved) if _gives(form, users, wanted)), None)


def before_propagation(
    model: AbstractRecommender, form: ProductForm, trained: Lists
) -> tuple[ProductForm, list[float]] | None:
    """The sparse weights that the vectors of ``form`` are made of by a graph model, and how; None if they are not.

    Args:
        trained: which items each user had in the training data.

    Returns:
        The weights in the place of the vectors, and what `propagated` makes the vectors of them with.
    """
    wanted = (form.users.dense(form.n_columns), form.items.dense(form.n_columns))
    of_users, of_items = (list(_candidates(model, side.n_rows)) for side in (form.users, form.items))
    for user, item in ((u, i) for u in of_users for i in of_items):
        n_entries = len(user.entries.values) + len(item.entries.values)
        is_smaller = n_entries < len(form.users.values) + len(form.items.values)
        if is_smaller and user.dense.shape[1] == item.dense.shape[1] == form.n_columns:
            weights = layer_weights(user.dense, item.dense, trained, wanted)
            if weights is not None:
                return replace(form, users=user.entries, items=item.entries), weights
    return None


def scores_of(model: AbstractRecommender, n_items: int) -> Scores:
    """``full_sort_predict`` of ``model`` for users (n,) that count from 0: (n, n_items) without padding."""

    @torch.no_grad()
    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        model.eval()
        device = next(model.parameters()).device
        parts = []
        for start in range(0, len(users), _BATCH):
            ids = torch.from_numpy(users[start : start + _BATCH] + 1)
            interaction = Interaction({model.USER_ID: ids}).to(device)
            parts.append(model.full_sort_predict(interaction).view(len(ids), -1)[:, 1:].float().cpu().numpy())
        return np.concatenate(parts)

    return scores


def _spread(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _candidates(model: nn.Module, n: int) -> Iterator[_Vectors]:
    """The tensors of ``model`` with a row for padding and one for each of ``n``, or more rows after these."""
    tensors: dict[int, Tensor] = {}
    sparse = sparse_weights(model)
    inside = {id(parameter) for weight in sparse.values() for parameter in weight.parameters()}
    for weight in sparse.values():
        if weight.n_rows > n and len(weight.shape) == 2:
            offsets = weight.row_offsets[1 : n + 2].cpu().numpy().astype(np.int64)
            values = weight.values.detach().cpu().numpy().astype(np.float32)[offsets[0] : offsets[-1]]
            entries = Entries(values, weight.columns.cpu().numpy()[offsets[0] : offsets[-1]], offsets - offsets[0])
            yield _Vectors(entries.dense(weight.n_columns), entries)
    # what a sparse weight keeps of itself for speed is no other table
    for module in (module for module in model.modules() if not isinstance(module, SparseWeight)):
        for value in [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(value, Tensor) and value.layout is torch.strided and id(value) not in inside:
                tensors[id(value)] = value
    for tensor in tensors.values():
        if tensor.dim() == 2 and tensor.shape[0] > n and tensor.is_floating_point() and tensor.shape[1] > 1:
            dense = tensor.detach()[1 : n + 1].float().cpu().numpy()
            if np.isfinite(dense).all():
                yield _Vectors(dense, Entries.of(dense))


def _of_pairs(
    of_users: list[_Vectors], of_items: list[_Vectors], users: NDArray[np.int64], wanted: NDArray[np.float32]
) -> Iterator[ProductForm]:
    for user, item in ((u, i) for u in of_users for i in of_items if u.dense.shape[1] == i.dense.shape[1]):
        n_columns = user.dense.shape[1]
        for vectors in (item, _of_length_one(item)):
            products = user.dense[users] @ vectors.dense.T
            if _is_near(products, wanted):
                yield ProductForm(user.entries, vectors.entries, n_columns, "none", False)
            if _is_near(_sigmoid(products), wanted):
                yield ProductForm(user.entries, vectors.entries, n_columns, "sigmoid", False)
            bias = (wanted - products).mean(0)
            if len(users) > 2 and _is_near(products + bias, wanted):
                yield _with_bias(user.entries, vectors.entries, bias, n_columns)
            weights = _column_weights(user.dense[users], vectors.dense, wanted)
            if _is_near((user.dense[users] * weights) @ vectors.dense.T, wanted):
                yield ProductForm(user.entries.times_columns(weights), vectors.entries, n_columns, "none", False)


def _solved(
    scores: Scores,
    of_users: list[_Vectors],
    of_items: list[_Vectors],
    n_users: int,
    users: NDArray[np.int64],
    wanted: NDArray[np.float32],
) -> Iterator[ProductForm]:
    """Given the vectors of the one side, those of the other that give the scores with the least error."""
    is_share = wanted.min() >= 0 and wanted.max() <= 1
    for item in of_items:
        n_columns = item.dense.shape[1]
        for vectors in (item, _of_length_one(item)) if 2 * n_columns < len(item.dense) else ():
            for transform in ("none", "sigmoid")[: 1 + is_share]:
                solved = _solve(vectors.dense, wanted, transform)
                if _is_near(_through(transform, solved @ vectors.dense.T), wanted):
                    blocks = (np.arange(s, min(s + _BATCH, n_users)) for s in range(0, n_users, _BATCH))
                    rows = np.concatenate([_solve(vectors.dense, scores(block), transform) for block in blocks])
                    yield ProductForm(Entries.of(rows), vectors.entries, n_columns, transform, False)
    for user in of_users:
        n_columns = user.dense.shape[1]
        others = np.setdiff1d(_spread(n_users, _PER_COLUMN * (n_columns + 1)), users)
        if len(others) > n_columns + 1:
            known = np.column_stack([user.dense[others], np.ones(len(others), np.float32)])
            solved = _solve(known, scores(others).T, "none")
            if _is_near(user.dense[users] @ solved[:, :-1].T + solved[:, -1], wanted):
                yield _with_bias(user.entries, Entries.of(solved[:, :-1]), solved[:, -1], n_columns)


def _solve(known: NDArray[np.float32], wanted: NDArray[np.float32], transform: str) -> NDArray[np.float32]:
    """(n, columns): vectors of which the products with ``known`` (m, columns) are near ``wanted`` (n, m)."""
    exact = known.astype(np.float64)
    if transform == "none":
        return np.linalg.lstsq(exact, wanted.T.astype(np.float64), rcond=None)[0].T.astype(np.float32)
    out = np.zeros((len(wanted), known.shape[1]), np.float32)
    for row, of_row in enumerate(wanted.astype(np.float64)):
        tells = (of_row > _SATURATED) & (of_row < 1 - _SATURATED)
        logits = np.log(of_row[tells] / (1 - of_row[tells]))
        out[row] = np.linalg.lstsq(exact[tells], logits, rcond=None)[0]
    return out


def _column_weights(
    users: NDArray[np.float32], items: NDArray[np.float32], wanted: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(columns,): the weights of the columns with which the products are nearest to ``wanted``."""
    some = _spread(len(items), 2 * items.shape[1])
    factors = (users[:, None] * items[some]).reshape(-1, items.shape[1]).astype(np.float64)
    return np.linalg.lstsq(factors, wanted[:, some].reshape(-1), rcond=None)[0].astype(np.float32)


def _with_bias(users: Entries, items: Entries, bias: NDArray[np.float32], n_columns: int) -> ProductForm:
    # of the size of the other entries, so that a scale for all of a row does
    constant = np.float32(np.sqrt(np.mean(users.values**2))) if len(users.values) else np.float32(1)
    constant = constant if constant > 0 else np.float32(1)
    return ProductForm(
        users.with_column(np.full(users.n_rows, constant), n_columns),
        items.with_column((bias / constant).astype(np.float32), n_columns),
        n_columns + 1,
        "none",
        True,
    )


def _of_length_one(vectors: _Vectors) -> _Vectors:
    lengths = np.linalg.norm(vectors.dense, axis=1, keepdims=True)
    factors = (1 / np.maximum(lengths, np.float32(1e-12))).astype(np.float32)
    return _Vectors(vectors.dense * factors, vectors.entries.times_rows(factors[:, 0]))


def _gives(form: ProductForm, users: NDArray[np.int64], wanted: NDArray[np.float32]) -> bool:
    """Whether the vectors as they are to be stored give ``wanted``."""
    of_users, of_items = (side.dense(form.n_columns) for side in (form.users, form.items))
    return _is_near(_through(form.transform, of_users[users] @ of_items.T), wanted)


def _through(transform: str, products: NDArray[np.float32]) -> NDArray[np.float32]:
    return _sigmoid(products) if transform == "sigmoid" else products


def _is_near(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    # what tells items apart is how scores differ; those that are all alike tell nothing
    spread, size = wanted.std(), np.abs(wanted).max(initial=0)
    return bool(spread > 0 and np.abs(found - wanted).max() <= _OF_SPREAD * spread + _OF_SIZE * size)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
