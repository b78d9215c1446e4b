"""Start the tables of a context-aware model's fields, and the layers that cross their rows."""

from collections.abc import Mapping
from logging import getLogger

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import ContextRecommender
from recbole.model.layers import BaseFactorizationMachine
from torch import Tensor, nn

from recbole_dsl.initialisation.shared_columns import column_shares, cross_columns, share_columns
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.budget import TensorSize, allocate_crossed
from recbole_dsl.training.field_counts import field_counts

# half of the tokens are seen so many times or more: equal rows were better with FM on ml-100k
_OFTEN = 32


def start_fields(
    model: nn.Module,
    dataset: Dataset,
    new: Mapping[str, SparseWeight],
    generator: torch.Generator,
    budget: str = "uniform",
) -> set[str]:
    """Give the tables of fields among the ``new`` weights, and the layers that cross their rows, a topology.

    Tables keep their values as they are: rows of rare tokens hardly change, and what they start from is noise to
    the layers that read them. If their rows are multiplied with each other, as in FM, they `share_columns`. Where
    tokens are rare, frequent ones have more of their weights, and more first orders in any model.

    Cross layers, as in DCNv2, multiply each entry of the joined rows of all fields by a weighted sum of these
    entries. There the rows share columns too, and the layers start where both entries exist (`cross_columns`),
    with values as drawn. A dense model with a tenth of the columns has a hundredth of the weights in its cross
    layers. So tables and cross layers share their weights anew (`allocate_crossed`), unless ``budget`` is "erk".

    Returns:
        The names of the weights that keep the scale of their initialiser; none of other models.
    """
    tables = _field_tables(model, new)
    if not tables:
        return set()
    counts = _rare_counts(model, dataset)
    wide, cross = _crossed(model, new)
    shares = field_budgets(model, new, budget)
    shared = bool(cross) or _multiplies_rows(model)
    for name, weight in tables.items():
        if shared or (weight.n_columns == 1 and weight in counts):
            share_columns(weight, generator, counts.get(weight), shares.get(name))
    if cross:
        filled = column_shares(wide.values(), counts).repeat(model.num_feature_field)
        for name, weight in cross.items():
            cross_columns(weight, filled, generator, shares.get(name))
    return {*tables, *cross}


def field_budgets(model: nn.Module, new: Mapping[str, SparseWeight], budget: str) -> dict[str, int]:
    """Number of alive weights that `start_fields` gives each of the ``new`` weights, where it changes that."""
    tables, cross = _crossed(model, new)
    if not cross or budget == "erk":
        return {}
    weights = {**tables, **cross}
    sizes = [TensorSize(name, w.n_rows, w.n_columns, w.capacity) for name, w in weights.items()]
    total = sum(weight.nnz for weight in weights.values())
    counts = dict(zip(weights, allocate_crossed(sizes[: len(tables)], sizes[len(tables) :], total)))
    densities = ", ".join(f"{name} {counts[name] / weight.numel:.4f}" for name, weight in weights.items())
    getLogger().info(f"sparse_init=svd: cross layers get the square of the tables' density: {densities}")
    return counts


def _field_tables(model: nn.Module, new: Mapping[str, SparseWeight]) -> dict[str, SparseWeight]:
    """The ``new`` tables of a context-aware model, first orders too; none of other models."""
    if not isinstance(model, ContextRecommender):
        return {}
    tables = {module._modules.get("weight") for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name: weight for name, weight in new.items() if weight in tables}


def _multiplies_rows(model: nn.Module) -> bool:
    """Whether the class of ``model``, or of a layer, tells that rows of fields are multiplied column by column."""
    # RecBole loads all of its context-aware models with the first one
    from recbole.model.context_aware_recommender import AFM, FFM, FwFM, xDeepFM

    multiply = (BaseFactorizationMachine, AFM, FFM, FwFM, xDeepFM)
    return any(isinstance(module, multiply) for module in model.modules())


def _crossed(
    model: nn.Module, new: Mapping[str, SparseWeight]
) -> tuple[dict[str, SparseWeight], dict[str, SparseWeight]]:
    """The ``new`` field tables but first orders, and the layers that cross their rows.

    These are square weights from the joined rows of all fields to themselves. Linear layers are none: a hidden
    layer may be as wide by chance.
    """
    tables = {name: weight for name, weight in _field_tables(model, new).items() if weight.n_columns > 1}
    widths = {weight.n_columns for weight in tables.values()}
    if len(widths) != 1:
        return tables, {}
    joined = model.num_feature_field * widths.pop()
    hidden = {module._modules.get("weight") for module in model.modules() if isinstance(module, nn.Linear)}
    return tables, {name: w for name, w in new.items() if tuple(w.shape) == (joined, joined) and w not in hidden}


def _rare_counts(model: nn.Module, dataset: Dataset) -> dict[SparseWeight, Tensor]:
    """The `field_counts` of ``dataset`` if half of its tokens are seen fewer than 32 times; otherwise nothing."""
    counts = field_counts(model, dataset)
    seen = [rows[rows > 0] for rows in counts.values()]
    if not any(map(len, seen)) or torch.cat(seen).median() >= _OFTEN:
        return {}
    getLogger().info(
        f"sparse_init=svd: half of the tokens are seen fewer than {_OFTEN} times; frequent ones get more weights"
    )
    return counts
