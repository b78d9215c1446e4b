"""Finds the vectors whose products are a model's scores, by its scores and not by its name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, product
from logging import getLogger
from typing import NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.utils import ModelType
from torch import Tensor, nn

from recbole_dsl.errors import described
from recbole_dsl.serving.csr import CSR, Floats, Ids, column_type
from recbole_dsl.serving.propagation import layer_weights
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.weight import SparseWeight

# users whose scores are compared; users for each column of a least squares problem; users scored at once
_SAMPLE, _PER_COLUMN, _BATCH = 16, 4, 256
# tolerances of a score, as float32 sums depend on their order: relative to the spread, and to the largest score
_OF_SPREAD, _OF_SIZE = 1e-4, 2e-6
# closer to 0 or 1, a float32 sigmoid cannot be inverted
_SATURATED = 1e-3

Scores = Callable[[Ids], Floats]


@dataclass(frozen=True)
class ProductForm:
    """Vectors whose products are a model's scores.

    Attributes:
        users: (n_users, n_columns), without padding.
        items: (n_items, n_columns).
        transform: "none", or "sigmoid" if that is applied to the products.
        has_bias: whether the last column is the items' bias.
    """

    users: CSR
    items: CSR
    transform: str = "none"
    has_bias: bool = False


class _Vectors(NamedTuple):
    """A table with a row for each user or item, as a dense array and as CSR."""

    dense: Floats
    entries: CSR


def product_form(model: AbstractRecommender, n_users: int, n_items: int) -> ProductForm | None:
    """The vectors whose products are the scores of ``model``, or None if there are none.

    Each tensor with a row for each user is paired with each tensor with a row for each item. A pair is tried as
    it is, with items of length 1, with a weight for each column, with a bias for each item, and through a sigmoid.
    Then one side is taken from the model, and the other is solved for by least squares. What is returned
    reproduces the scores of ``full_sort_predict`` for users that it was not found with.

    Args:
        n_users: without padding, as ``n_items``.
    """
    # the attribute of the class, as SGL keeps an option under that name
    kind = type(model).type
    if isinstance(model, AutoEncoderMixin) or kind not in (ModelType.GENERAL, ModelType.KNOWLEDGE):
        # these score by the user's history
        return None
    scores = scores_of(model, n_items)
    users = _spread(n_users, 2 * _SAMPLE)
    try:
        wanted, again = scores(users), scores(users)
    except Exception as error:
        # a model of the user's own may need more than users
        getLogger().info(
            f"not a product of vectors, as full_sort_predict needs more than users: {described(error)}"
        )
        return None
    if wanted.shape != (len(users), n_items) or not np.isfinite(wanted).all() or (wanted != again).any():
        return None
    with torch.no_grad():
        of_users, of_items = list(_tables(model, n_users)), list(_tables(model, n_items))
    half, of_half = users[::2], wanted[::2]
    found = _of_pairs(of_users, of_items, half, of_half)
    solved = _solved(scores, of_users, of_items, n_users, half, of_half)
    return next((form for form in chain(found, solved) if _gives(form, users, wanted)), None)


def before_propagation(
    model: AbstractRecommender, form: ProductForm, trained: CSR
) -> tuple[ProductForm, list[float]] | None:
    """The sparse weights from which propagation makes the vectors of ``form``; None if there are none.

    Args:
        trained: the items of each user in the training data.

    Returns:
        The form with these weights in place of the vectors, and the weights of the layers for `propagated`.
    """
    wanted = (form.users.dense(), form.items.dense())
    for user, item in product(*(list(_tables(model, side.n_rows)) for side in (form.users, form.items))):
        n_entries = len(user.entries.values) + len(item.entries.values)
        is_smaller = n_entries < len(form.users.values) + len(form.items.values)
        if is_smaller and user.entries.n_columns == item.entries.n_columns == form.items.n_columns:
            weights = layer_weights(user.dense, item.dense, trained, wanted)
            if weights is not None:
                return replace(form, users=user.entries, items=item.entries), weights
    return None


def scores_of(model: AbstractRecommender, n_items: int) -> Scores:
    """A function that returns the scores (n, n_items) of users (n,) by ``full_sort_predict``, without padding."""

    @torch.no_grad()
    def scores(users: Ids) -> Floats:
        model.eval()
        device = next(model.parameters()).device
        parts = []
        for start in range(0, len(users), _BATCH):
            ids = torch.from_numpy(users[start : start + _BATCH] + 1)
            interaction = Interaction({model.USER_ID: ids}).to(device)
            parts.append(model.full_sort_predict(interaction).view(len(ids), -1)[:, 1:].float().cpu().numpy())
        return np.concatenate(parts)

    return scores


def _spread(n: int, most: int) -> Ids:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _tables(model: nn.Module, n: int) -> Iterator[_Vectors]:
    """Each tensor of ``model`` with a row for padding and ``n`` others, without the padding and further rows."""
    tensors: dict[int, Tensor] = {}
    sparse = sparse_weights(model)
    inside = {id(parameter) for weight in sparse.values() for parameter in weight.parameters()}
    for weight in sparse.values():
        if weight.n_rows > n and len(weight.shape) == 2:
            offsets = weight.row_offsets[1 : n + 2].cpu().numpy().astype(np.int64)
            values = weight.values.detach().cpu().numpy().astype(np.float32)[offsets[0] : offsets[-1]]
            columns = weight.columns.cpu().numpy()[offsets[0] : offsets[-1]]
            entries = CSR(offsets - offsets[0], columns, values, weight.n_columns)
            yield _Vectors(entries.dense(), entries)
    # a sparse weight keeps copies of itself for speed
    for module in (module for module in model.modules() if not isinstance(module, SparseWeight)):
        for value in [*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()]:
            if isinstance(value, Tensor) and value.layout is torch.strided and id(value) not in inside:
                tensors[id(value)] = value
    for tensor in tensors.values():
        if tensor.dim() == 2 and tensor.shape[0] > n and tensor.is_floating_point() and tensor.shape[1] > 1:
            dense = tensor.detach()[1 : n + 1].float().cpu().numpy()
            if np.isfinite(dense).all():
                yield _Vectors(dense, CSR.of_nonzero(dense))


def _of_pairs(
    of_users: list[_Vectors], of_items: list[_Vectors], users: Ids, wanted: Floats
) -> Iterator[ProductForm]:
    """The forms whose two sides are tables of the model."""
    for user, item in product(of_users, of_items):
        if user.dense.shape[1] != item.dense.shape[1]:
            continue
        for vectors in (item, _normalised(item)):
            products = user.dense[users] @ vectors.dense.T
            if _is_near(products, wanted):
                yield ProductForm(user.entries, vectors.entries)
            if _is_near(_sigmoid(products), wanted):
                yield ProductForm(user.entries, vectors.entries, "sigmoid")
            bias = (wanted - products).mean(0)
            if len(users) > 2 and _is_near(products + bias, wanted):
                yield _with_bias(user.entries, vectors.entries, bias)
            weights = _column_weights(user.dense[users], vectors.dense, wanted)
            if _is_near((user.dense[users] * weights) @ vectors.dense.T, wanted):
                weighted = user.entries.values * weights[user.entries.columns]
                yield ProductForm(replace(user.entries, values=weighted), vectors.entries)


def _solved(
    scores: Scores,
    of_users: list[_Vectors],
    of_items: list[_Vectors],
    n_users: int,
    users: Ids,
    wanted: Floats,
) -> Iterator[ProductForm]:
    """The forms with a table of the model on one side, and its least squares solution on the other."""
    is_share = wanted.min() >= 0 and wanted.max() <= 1
    for item in of_items:
        if 2 * item.dense.shape[1] >= len(item.dense):
            continue
        for vectors, transform in product((item, _normalised(item)), ("none", "sigmoid")[: 1 + is_share]):
            solved = _solve(vectors.dense, wanted, transform)
            if _is_near(_through(transform, solved @ vectors.dense.T), wanted):
                blocks = (np.arange(s, min(s + _BATCH, n_users)) for s in range(0, n_users, _BATCH))
                rows = np.concatenate([_solve(vectors.dense, scores(block), transform) for block in blocks])
                yield ProductForm(CSR.of_nonzero(rows), vectors.entries, transform)
    for user in of_users:
        n_columns = user.dense.shape[1]
        others = np.setdiff1d(_spread(n_users, _PER_COLUMN * (n_columns + 1)), users)
        if len(others) > n_columns + 1:
            known = np.column_stack([user.dense[others], np.ones(len(others), np.float32)])
            solved = _solve(known, scores(others).T, "none")
            if _is_near(user.dense[users] @ solved[:, :-1].T + solved[:, -1], wanted):
                yield _with_bias(user.entries, CSR.of_nonzero(solved[:, :-1]), solved[:, -1])


def _solve(known: Floats, wanted: Floats, transform: str) -> Floats:
    """(n, columns): the vectors whose products with ``known`` (m, columns) are nearest to ``wanted`` (n, m)."""
    exact = known.astype(np.float64)
    if transform == "none":
        return np.linalg.lstsq(exact, wanted.T.astype(np.float64), rcond=None)[0].T.astype(np.float32)
    out = np.zeros((len(wanted), known.shape[1]), np.float32)
    for row, of_row in enumerate(wanted.astype(np.float64)):
        tells = (of_row > _SATURATED) & (of_row < 1 - _SATURATED)
        logits = np.log(of_row[tells] / (1 - of_row[tells]))
        out[row] = np.linalg.lstsq(exact[tells], logits, rcond=None)[0]
    return out


def _column_weights(users: Floats, items: Floats, wanted: Floats) -> Floats:
    """(columns,): the weights of the columns that bring the products nearest to ``wanted``."""
    some = _spread(len(items), 2 * items.shape[1])
    factors = (users[:, None] * items[some]).reshape(-1, items.shape[1]).astype(np.float64)
    return np.linalg.lstsq(factors, wanted[:, some].reshape(-1), rcond=None)[0].astype(np.float32)


def _with_bias(users: CSR, items: CSR, bias: Floats) -> ProductForm:
    # as large as the other entries, so that one scale suits a whole row when it is quantised
    constant = np.float32(np.sqrt(np.mean(users.values**2))) if len(users.values) else np.float32(1)
    constant = constant if constant > 0 else np.float32(1)
    users = _with_column(users, np.full(users.n_rows, constant))
    return ProductForm(users, _with_column(items, (bias / constant).astype(np.float32)), has_bias=True)


def _with_column(matrix: CSR, column: Floats) -> CSR:
    """``matrix`` with one more ``column`` (rows,) at the end."""
    ends, n_columns = matrix.offsets[1:], matrix.n_columns + 1
    columns = np.insert(matrix.columns.astype(column_type(n_columns)), ends, matrix.n_columns)
    offsets = matrix.offsets + np.arange(len(matrix.offsets))
    return CSR(offsets, columns, np.insert(matrix.values, ends, column), n_columns)


def _normalised(vectors: _Vectors) -> _Vectors:
    """``vectors`` scaled to length 1."""
    lengths = np.linalg.norm(vectors.dense, axis=1, keepdims=True)
    factors = (1 / np.maximum(lengths, np.float32(1e-12))).astype(np.float32)
    values = vectors.entries.values * factors[vectors.entries.row_of_entry(), 0]
    return _Vectors(vectors.dense * factors, replace(vectors.entries, values=values))


def _gives(form: ProductForm, users: Ids, wanted: Floats) -> bool:
    """Whether the vectors, as they will be stored, reproduce the scores ``wanted``."""
    return _is_near(_through(form.transform, form.users.dense()[users] @ form.items.dense().T), wanted)


def _through(transform: str, products: Floats) -> Floats:
    return _sigmoid(products) if transform == "sigmoid" else products


def _is_near(found: Floats, wanted: Floats) -> bool:
    # scores that are all equal prove nothing
    spread, size = wanted.std(), np.abs(wanted).max(initial=0)
    return bool(spread > 0 and np.abs(found - wanted).max() <= _OF_SPREAD * spread + _OF_SIZE * size)


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
