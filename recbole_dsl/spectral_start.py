"""Start sparse weights of users and of items from the interactions that a model is trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

import torch
from recbole.data.dataset import Dataset
from torch import Tensor, nn

from recbole_dsl.sparse.modules import SparseEmbedding, sparse_weights
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.spectral import Factors, start_from


def start_weights(model: nn.Module, dataset: Dataset, seed: int) -> list[str]:
    """Give the sparse weights of users and of items in ``model`` a topology and values from ``dataset``.

    These are `tables_of` and `layers_of` the model. Layers keep the scale of their initialiser, and they and all
    other sparse weights are divided by the root of their density: with fewer terms in each sum, the outputs keep
    the variance that the initialiser gave them.

    That is for ``sparse_init=svd``, once, for weights that `sparsify` made and nothing was loaded into; see
    `Factors`. The entries of a table of users are compared by their share of the row, so that every user gets
    about as many, as all count alike in a metric; those of items as they are, so that popular ones get more.

    Returns:
        The names of the weights.
    """
    factors: dict[int, Factors] = {}
    generator = torch.Generator().manual_seed(seed)

    def factors_of(columns: int) -> Factors:
        if columns not in factors:
            factors[columns] = Factors(dataset.inter_matrix("csr"), columns, seed)
        return factors[columns]

    new = {name: weight for name, weight in sparse_weights(model).items() if weight.awaits_data}
    started = []
    for name, side, weight in tables_of(model, dataset):
        if name in new:
            rows = getattr(factors_of(weight.n_columns), f"{side}s")
            start_from(weight, rows, generator, by_share=side == "user")
            started.append(name)
    for name, layer in layers_of(model, dataset).items():
        if name in new:
            weight = layer.weight
            square_sum = float(weight.values.detach().square().sum()) / weight.density
            start_from(weight, layer.rows(factors_of(layer.n_units)), generator, square_sum=square_sum)
            started.append(name)
    for name, weight in new.items():
        if name not in started:
            weight.values.detach().mul_(weight.density**-0.5)
        weight.awaits_data = False
    return started


def tables_of(model: nn.Module, dataset: Dataset) -> Iterator[tuple[str, str, SparseWeight]]:
    """The sparse tables of users and of items in ``model``: name, "user" or "item", weight.

    A table is one of users if it is an embedding of two columns or more with as many rows as ``dataset`` has
    users, and so with items; if it has as many users as items, the name must hold "user" or "item".
    """
    for name, module in model.named_modules():
        if isinstance(module, SparseEmbedding) and module.embedding_dim > 1:
            side = _side(module.num_embeddings, name, dataset)
            if side:
                yield f"{name}.weight", side, module._modules["weight"]


@dataclass(frozen=True)
class Layer:
    """A linear layer with an input, or an output, for each user or each item, as autoencoders have.

    Attributes:
        side: "user" or "item".
        weight: (outputs, inputs).
        reads: whether the users or items are its inputs.
    """

    side: str
    weight: SparseWeight
    reads: bool

    @property
    def n_units(self) -> int:
        """The size of its other side."""
        return self.weight.n_rows if self.reads else self.weight.n_columns

    def rows(self, factors: Factors) -> Callable[[int, int], Tensor]:
        """What gives a block of rows of ``factors``, transposed if the layer `reads`."""
        of_side = getattr(factors, f"{self.side}s")
        if not self.reads:
            return of_side
        return lambda start, stop: of_side(0, self.weight.n_columns, slice(start, stop)).T.contiguous()


def layers_of(model: nn.Module, dataset: Dataset) -> dict[str, Layer]:
    """Each `Layer` of ``model`` by the name of its sparse weight; sizes decide, as in `tables_of`."""
    layers = {}
    for name, module in model.named_modules():
        weight = module._modules.get("weight")
        if not (isinstance(module, nn.Linear) and isinstance(weight, SparseWeight)):
            continue
        sides = [_side(size, name, dataset) for size in weight.shape]
        if sides.count(None) == 1 and min(weight.shape) > 1:
            reads = sides[0] is None
            layers[f"{name}.weight"] = Layer(sides[reads], weight, reads)
    return layers


def _side(size: int, name: str, dataset: Dataset) -> Optional[str]:
    """Whose number ``size`` is, "user" or "item"; None if nobody's."""
    if not (dataset.uid_field and dataset.iid_field):
        return None
    numbers = {"user": dataset.user_num, "item": dataset.item_num}
    sides = [side for side, number in numbers.items() if number == size]
    if len(sides) > 1:
        sides = [side for side in sides if side in name.lower()]
    return sides[0] if len(sides) == 1 else None
