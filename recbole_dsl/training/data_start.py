"""Initialise the sparse weights of users and of items from the interactions that a model is trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from logging import getLogger

import torch
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_dsl.data.interactions import has_users_and_items, interactions_of
from recbole_dsl.data.kept_start import initialise_once, kept_factors
from recbole_dsl.graphs.propagation import has_graphs
from recbole_dsl.initialisation.factors import Factors, initialise_from
from recbole_dsl.initialisation.held_out import histories_are_long
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.budget import TensorSize, allocate
from recbole_dsl.training.field_start import start_fields

# scale of tables whose row products are the scores themselves. At scale 1 products of unrelated rows have the
# variance 1, which layers and propagation need; BPR then converges within a few epochs, and training gains little.
# Sequential models multiply a state by the rows of all items. They learn more slowly from the scale of their own
# initialisers, which is two fifths of this for GRU4Rec on ml-100k, and a quarter for SASRec
_SCALE = 0.25
# items whose mean a masked one starts from, at most
_SOME = 2**12


def start_weights(
    model: nn.Module,
    dataset: Dataset,
    seed: int,
    item_density_ratio: float | None = None,
    budget: str = "uniform",
) -> list[str]:
    """Give the sparse weights of users and of items in ``model`` a topology and values from ``dataset``.

    These are its `sided_weights`. Layers keep the scale of their initialiser. These and all other sparse weights
    are divided by the root of their density: with fewer terms in each sum, the outputs keep the variance that the
    initialiser gave them. Tables of context-aware models and the layers that cross their rows start otherwise; see
    `start_fields`.

    This happens once, with ``sparse_init=svd``, to weights that `sparsify` made and into which nothing was loaded,
    unless another with as many factors holds given values; see `best_factors`. The entries of a table of
    users are compared by their share of the row, so that every user gets about as many, as all count alike in a
    metric; those of items as they are, so that popular ones get more. In a sequential model any item may be the
    one that a prediction follows, and its rows share alike too. A layer starts from the `Factors` that stand
    out; if it has more units than there are factors these repeat. Not in a table: a user and an item who are alike
    would make different columns alive. Where a model is a table of users and one of items, and histories are long,
    the tables share their weights anew, by ``item_density_ratio``; see `allocate`. A ``budget`` of "erk" stays as
    it is.

    Returns:
        The names of the weights.
    """
    factors: dict[tuple[int, bool], Factors] = {}
    shares: dict[str, int] = {}
    generator = torch.Generator().manual_seed(seed)
    new = {name: weight for name, weight in sparse_weights(model).items() if weight.awaits_data}
    sided = sided_weights(model, dataset)
    is_sequential = isinstance(model, SequentialRecommender)
    # the columns of given values have a meaning of their own, which factors would not match
    taken = {one.n_factors for one in sided.values() if one.weight.pretrained}
    sided = {name: one for name, one in sided.items() if name in new and one.n_factors not in taken}
    for name, one in sided.items():
        kind = one.n_factors, one.is_table
        if kind not in factors:
            interactions = interactions_of(dataset)
            if one.is_table:
                densities = _densities(sided, one.n_factors)
                best = kept_factors(dataset.config, interactions, one.n_factors, densities)
                getLogger().info(
                    f"sparse_init=svd: {best.n_standing_out} of {one.n_factors} factors are stronger than in "
                    f"shuffled data; interactions damped to the power {best.damping}, codes spread in "
                    f"{best.steps} steps"
                )
                factors[kind] = best
                is_uneven = budget != "erk" and _has_only_tables(model, sided)
                if is_uneven and histories_are_long(interactions):
                    shares = _shared(sided, item_density_ratio)
            else:
                factors[kind] = kept_factors(dataset.config, interactions, one.n_factors, None)
            del interactions
        rows = one.rows(factors[kind])
        if one.is_table:
            is_small = is_sequential or _has_only_tables(model, sided)
            scale = _SCALE if is_small else 1.0
            square_sum = scale**2 * one.weight.n_rows * one.weight.n_columns**0.5
        else:
            square_sum = float(one.weight.values.detach().square().sum()) / one.weight.density
        by_share = one.is_table and (is_sequential or one.side == "user")
        nnz = shares.get(name, one.weight.nnz)
        initialise = partial(initialise_from, one.weight, rows, generator, by_share, square_sum, nnz)
        arguments = one.side, one.reads, by_share, square_sum, nnz
        initialise_once(dataset.config, factors[kind], arguments, one.weight, generator, initialise)
    others = {name: weight for name, weight in new.items() if name not in sided}
    as_drawn = start_fields(model, dataset, others, generator, budget)
    for name, weight in new.items():
        if name in others and name not in as_drawn:
            weight.values.detach().mul_(weight.density**-0.5)
        weight.awaits_data = False
    return list(sided)


def _has_only_tables(model: nn.Module, sided: "dict[str, SidedWeight]") -> bool:
    tables = {id(one.weight.values) for one in sided.values() if one.is_table}
    return {id(parameter) for parameter in model.parameters()} <= tables and not has_graphs(model)


def _shared(tables: "dict[str, SidedWeight]", item_density_ratio: float | None) -> dict[str, int]:
    """How many weights each of ``tables`` gets of all that they have, if items have a lower density than users."""
    if len({one.side for one in tables.values()}) < 2:
        return {}
    weights = {name: one.weight for name, one in tables.items()}
    sizes = [
        TensorSize(name, weight.n_rows, weight.n_columns, weight.capacity, tables[name].side == "item")
        for name, weight in weights.items()
    ]
    density = sum(weight.nnz for weight in weights.values()) / sum(weight.numel for weight in weights.values())
    counts = dict(zip(weights, allocate(sizes, density, "uniform", item_density_ratio)))
    shares = ", ".join(f"{name} {counts[name] / weight.numel:.4f}" for name, weight in weights.items())
    getLogger().info(f"item_density_ratio: the densities are {shares}")
    return counts


def _densities(sided: "dict[str, SidedWeight]", n_factors: int) -> tuple[float, float]:
    """The densities of the first tables of users and of items with ``n_factors``; of the other if one lacks."""
    found = {
        one.side: one.weight.density
        for one in reversed(sided.values())
        if one.is_table and one.n_factors == n_factors
    }
    return found.get("user", found.get("item")), found.get("item", found.get("user"))


@dataclass(frozen=True)
class SidedWeight:
    """A sparse weight with a row or a column for each user, or for each item.

    Attributes:
        side: "user" or "item".
        weight: (users or items, factors), transposed if `reads`.
        is_table: whether it is an embedding; otherwise it is a linear layer, as autoencoders have.
        n_members: how many users or items there are. A table may have one more row, for what a model masks.
        reads: whether the users or items are the inputs of a layer.
    """

    side: str
    weight: SparseWeight
    is_table: bool
    n_members: int
    reads: bool = False

    @property
    def n_factors(self) -> int:
        """The size of its other side."""
        return self.weight.n_rows if self.reads else self.weight.n_columns

    def rows(self, factors: Factors) -> Callable[[int, int], Tensor]:
        """A function that gives a block of the weight's rows, from the `users` or the `items` of ``factors``."""
        of_side, n = getattr(factors, f"{self.side}s"), self.n_members
        if self.reads:
            return lambda start, stop: of_side(0, self.weight.n_columns, slice(start, stop)).T.contiguous()
        if self.weight.n_rows == n:
            return of_side
        # a masked item may be any
        masked = of_side(0, min(n, _SOME)).mean(0, keepdim=True)
        return lambda start, stop: torch.cat([of_side(start, min(stop, n)), masked[: max(0, stop - n)]])


def sided_weights(model: nn.Module, dataset: Dataset) -> dict[str, SidedWeight]:
    """Each `SidedWeight` of ``model`` by its name, tables first.

    A table is one of users if it is an embedding of two columns or more with as many rows as ``dataset`` has
    users, and so with items; if it has as many users as items, the name must hold "user" or "item". That is so too
    if the table has one row more, for a token that masks. A layer has an input, or an output, for each of them,
    and on its other side two units or more.
    """
    tables, layers, numbers = {}, {}, {}
    if has_users_and_items(dataset):
        numbers = {"user": dataset.user_num, "item": dataset.item_num}
    for name, module in model.named_modules():
        weight = module._modules.get("weight")
        is_table = isinstance(module, nn.Embedding)
        if not (isinstance(weight, SparseWeight) and (is_table or isinstance(module, nn.Linear))):
            continue
        if min(weight.shape) < 2:
            continue
        of_rows, of_columns = (_side(size, name, numbers) for size in weight.shape)
        if is_table:
            of_rows = _masked_side(weight.n_rows, name, numbers) or of_rows
            if of_rows:
                tables[f"{name}.weight"] = SidedWeight(of_rows, weight, is_table, numbers[of_rows])
        elif (of_rows is None) != (of_columns is None):
            side = of_rows or of_columns
            layers[f"{name}.weight"] = SidedWeight(side, weight, is_table, numbers[side], reads=of_rows is None)
    return {**tables, **layers}


def _side(size: int, name: str, numbers: dict[str, int]) -> str | None:
    """The side with ``size`` members, "user" or "item"; None if neither or both."""
    sides = [side for side, number in numbers.items() if number == size]
    if len(sides) > 1:
        sides = [side for side in sides if side in name.lower()]
    return sides[0] if len(sides) == 1 else None


def _masked_side(size: int, name: str, numbers: dict[str, int]) -> str | None:
    """The side that ``name`` has, if ``size`` is one more than its members."""
    return next((side for side, number in numbers.items() if number + 1 == size and side in name.lower()), None)
