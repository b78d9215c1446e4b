"""Which axis of which weight has an entry for each token of a field, found by making the model for more tokens."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data.dataset import Dataset
from torch import nn

from recbole_dsl.data.rows import rows_of
from recbole_dsl.measure.untouched import random_state_kept
from recbole_dsl.sparse.deferred import deferred_tables
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.training.model_building import make_model

# lists of tokens that are made longer at once, each by another power of two
_AT_ONCE = 8
# of the interactions that the model is made for
_FEW = 256


@dataclass(frozen=True)
class Axis:
    """An axis of a weight with an entry for each token.

    Attributes:
        places: lists of tokens, by their place in `rows_of`, one after the other.
        extra: how many entries come after them, as one for a mask; negative if the first ones are left out.
    """

    places: tuple[int, ...]
    extra: int

    def old_entries(
        self, maps: Mapping[int, NDArray[np.int64]], old_sizes: Mapping[int, int], old_order: Sequence[int]
    ) -> NDArray[np.int64]:
        """The entry of the old axis that each one was, or -1.

        Args:
            maps: for each place the old id of each id, or -1.
            old_sizes: for each place how many ids there were.
            old_order: the places in the order that they had.
        """
        starts = dict(zip(old_order, np.cumsum([0, *(old_sizes[place] for place in old_order)])))
        parts = [np.where(maps[place] >= 0, maps[place] + starts[place], -1) for place in self.places]
        total = sum(old_sizes[place] for place in self.places)
        entries = np.concatenate([*parts, total + np.arange(max(0, self.extra))])
        return np.maximum(entries[max(0, -self.extra) :] + min(0, self.extra), -1)


def token_axes(config: Config, model: nn.Module, dataset: Dataset) -> dict[str, tuple[Axis | None, ...]]:
    """For each weight and buffer of ``model``, by its name, what each of its axes is of; None for no tokens.

    The model is made again, for a few interactions and lists of tokens that are longer, each by another number.
    Nothing is drawn from the random numbers of the run.
    """
    rows = rows_of(dataset)
    shapes = _shapes(model)
    sizes = {place: len(names) for place, names in _lists(dataset, rows).items()}
    found: dict[str, list[set[int]]] = {name: [set() for _ in shape] for name, shape in shapes.items()}
    with random_state_kept():
        for start in range(0, len(sizes), _AT_ONCE):
            places = list(sizes)[start : start + _AT_ONCE]
            more = {place: 2**number for number, place in enumerate(places)}
            for name, shape in _shapes(_made_for(config, dataset, rows, more)).items():
                for axis, (longer, size) in enumerate(zip(shape, shapes.get(name, ()))):
                    found[name][axis] |= {place for place, by in more.items() if (longer - size) & by}
    return {
        name: tuple(
            Axis(_in_order(of, dataset, rows, model, name), size - sum(sizes[place] for place in of))
            if of
            else None
            for of, size in zip(axes, shapes[name])
        )
        for name, axes in found.items()
    }


def is_by_column(model: nn.Module, name: str) -> bool:
    """Whether the weight ``name`` is a table of all fields, one after the other in the order of the columns."""
    parts = name.split(".")
    owners = (model.get_submodule(".".join(parts[:n])) for n in range(1, len(parts)))
    return any(hasattr(owner, "offsets") for owner in owners)


def _in_order(
    places: set[int], dataset: Dataset, rows: Mapping[str, Any], model: nn.Module, name: str
) -> tuple[int, ...]:
    order = places_in_order(rows)
    # graph models have users before items, whatever the columns
    user = rows["fields"].get(dataset.uid_field)
    first = None if is_by_column(model, name) else user
    return tuple(sorted(places, key=lambda place: (place != first, order.index(place))))


def places_in_order(rows: Mapping[str, Any]) -> list[int]:
    """The places of the lists of tokens in ``rows``, in the order of the columns."""
    columns = [*rows["order"], *rows["fields"]]
    return list(dict.fromkeys(rows["fields"][column] for column in columns if column in rows["fields"]))


def _lists(dataset: Dataset, rows: Mapping[str, Any]) -> dict[int, NDArray]:
    return {place: dataset.field2id_token[field] for field, place in rows["fields"].items()}


def _made_for(config: Config, dataset: Dataset, rows: Mapping[str, Any], more: Mapping[int, int]) -> nn.Module:
    longer = {
        place: np.append(names, [f"\0{place}\0{number}" for number in range(more.get(place, 0))])
        for place, names in _lists(dataset, rows).items()
    }
    few = copy.copy(dataset)
    few.inter_feat = dataset.inter_feat[:_FEW]
    few.field2id_token = {field: longer[place] for field, place in rows["fields"].items()}
    with deferred_tables():
        return make_model(config, few)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    sparse = sparse_weights(model, all_names=True)
    parts = {f"{name}.{part}" for name, weight in sparse.items() for part in weight.state_dict()}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    shapes = {name: tuple(tensor.shape) for name, tensor in named if name not in parts}
    return shapes | {name: tuple(weight.shape) for name, weight in sparse.items()}
