"""The model that a warm start begins from: whether it fits, and where its entries are today."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.tokens import unpack_tokens
from recbole_dsl.config import DSLConfig
from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.data.rows import rows_of
from recbole_dsl.errors import DSLError
from recbole_dsl.graphs.propagation import has_graphs
from recbole_dsl.initialisation.recode import moved
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.sparse.validity import PARTS, parts_in, topology_problem
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.budget import TensorSize, allocate
from recbole_dsl.training.token_axes import Axis, is_by_column, places_in_order, token_axes


class OldModel:
    """The file that the option ``warm_start`` names, beside the model and the data of today.

    Args:
        model: sparse.
        dataset: the training part.

    Attributes:
        state: the state dict of the file.
        maps: list of tokens, by its place in `rows_of` -> the old id of each id, or -1.
        counts: field -> how many of its tokens were there before, are new, and are gone.
        axes: weight -> which of its axes has an entry for each token.

    Raises:
        DSLError: if the file is no checkpoint, of another model, or has no user or item of the data.
    """

    def __init__(self, config: Config, model: AbstractRecommender, dataset: Dataset, options: DSLConfig):
        self.model, self.dataset, self.options = model, dataset, options
        self.path = str(options.warm_start)
        self.named = f"warm_start={self.path}"
        self.checkpoint = read_checkpoint(self.path, model=config["model"], option="warm_start")
        self.state: dict[str, Tensor] = self.checkpoint["state_dict"]
        if not self.checkpoint["rows"]:
            raise DSLError(
                f"{self.named}: does not record which user or item each row belongs to: must be a "
                "file of version 4 or later"
            )
        self._compare_tokens(self.checkpoint["rows"])
        self.weights = sparse_weights(model)
        self.axes = token_axes(config, model, dataset)

    def _compare_tokens(self, theirs: Mapping[str, Any]) -> None:
        own = rows_of(self.dataset)
        self.rows, self.old_order = own, places_in_order(theirs)
        self.counts: dict[str, list[int]] = {}
        self.maps: dict[int, NDArray[np.int64]] = {}
        self.old_sizes: dict[int, int] = {}
        old_places = {}
        for name in set(own["fields"]) ^ set(theirs["fields"]):
            whose = f"dataset={self.dataset.dataset_name}" if name in own["fields"] else "the file"
            raise DSLError(f"{self.named}: only {whose} has {name}: must be data with the columns of the file")
        for name, place in own["fields"].items():
            old_places.setdefault(place, theirs["fields"][name])
            if place in self.maps:
                continue
            before = unpack_tokens(theirs["tokens"][theirs["fields"][name]])
            now = [str(token) for token in self.dataset.field2id_token[name][1:]]
            index = pd.Index(before, dtype=object)
            first = ~index.duplicated()
            found = index[first].get_indexer(pd.Index(now, dtype=object))
            ids = np.where(found >= 0, np.flatnonzero(first)[found] + 1 if len(before) else 0, -1)
            self.maps[place], self.old_sizes[place] = np.r_[0, ids].astype(np.int64), len(before) + 1
            kept = len(np.unique(ids[ids > 0]))
            self.counts[name] = [kept, int((ids < 0).sum()), len(before) - kept]
        self.old_order = [new for old in self.old_order for new in old_places if old_places[new] == old]
        sides = [side for side in (self.dataset.uid_field, self.dataset.iid_field) if side] or list(own["fields"])
        if not any(self.counts[side][0] for side in sides if side in self.counts):
            raise DSLError(
                f"{self.named}: has none of the {' and '.join(map(str, sides))} of "
                f"dataset={self.dataset.dataset_name}: must be a model of the same ones"
            )

    def check(self) -> None:
        """Raise a DSLError if the weights of the file are not those of such a model."""
        sparse = sparse_weights(self.model, all_names=True)
        for name, axes in self.axes.items():
            self._check_shape(name, axes, sparse.get(name))
        for name in self.state:
            whole, _, part = name.rpartition(".")
            if name not in self.axes and not (whole in self.axes and part in PARTS):
                raise DSLError(f"{self.named}: does not fit the model: {name} is unknown")
        method = self.options.warm_start_rows
        if method == "recode" and not self.tables():
            raise DSLError(
                f"warm_start_rows=recode: must be fold_in or random with {type(self.model).__name__}, whose "
                "scores are not the products of one table of users and one of items"
            )
        short = self._short([weight.nnz for weight in self.weights.values()])
        if self.options.weights is not None and short:
            raise DSLError(
                f"weights={self.options.weights}: must be at least {self._least()}, one for each row of {short}"
            )

    def _short(self, counts: Sequence[int]) -> str | None:
        """The first table of tokens that has fewer of ``counts``, the alive weights of each, than rows."""
        for (name, weight), count in zip(self.weights.items(), counts):
            if self.axes[name][0] is not None and weight.n_columns > 1 and count < weight.n_rows - 1:
                return name
        return None

    def _least(self) -> int:
        """The smallest number of weights that gives every table of tokens one for each row."""
        sizes = [TensorSize(name, w.n_rows, w.n_columns, w.capacity) for name, w in self.weights.items()]
        numel = sum(size.numel for size in sizes)
        budget = self.options.budget or "uniform"

        def is_short(total: int) -> bool:
            return self._short(allocate(sizes, total / numel, budget)) is not None

        return bisect_left(range(numel), True, len(sizes), key=lambda total: not is_short(total))

    def _check_shape(self, name: str, axes: tuple[Axis | None, ...], weight: SparseWeight | None) -> None:
        dense = None if weight is not None else self.model.state_dict().get(name)
        if weight is None and dense is None:
            # a buffer that is not saved
            return
        now = tuple(dense.shape if weight is None else weight.shape)
        wanted = tuple(
            size if axis is None else sum(self.old_sizes[place] for place in axis.places) + axis.extra
            for size, axis in zip(now, axes)
        )
        if weight is None:
            if f"{name}.values" in self.state and not self._is_trained(name):
                # a frozen copy, which the model refreshes by itself
                return
            if name not in self.state:
                how = "is sparse there" if f"{name}.values" in self.state else "is missing"
                raise DSLError(f"{self.named}: does not fit the model: {name} {how}")
            given = tuple(self.state[name].shape)
            if given != wanted and not self.is_of_the_data(name):
                raise DSLError(f"{self.named}: does not fit the model: {name} is {given}, must be {wanted}")
            return
        parts = parts_in(self.state, name)
        if any(part is None for part in parts):
            how = "is dense there" if name in self.state else "is missing"
            raise DSLError(f"{self.named}: does not fit the model: {name} {how}")
        given = tuple((self.checkpoint.get("shapes") or {}).get(name, wanted))
        if given != wanted:
            raise DSLError(f"{self.named}: does not fit the model: {name} is {given}, must be {wanted}")
        problem = topology_problem(wanted[0], int(np.prod(wanted[1:])), None, *parts)
        if problem:
            raise DSLError(f"{self.named}: does not fit the model: {name}: {problem}")

    def is_of_the_data(self, name: str) -> bool:
        """Whether a tensor follows from the data of today, rather than from a training."""
        return not self._is_trained(name) and any(axis is not None for axis in self.axes[name])

    def _is_trained(self, name: str) -> bool:
        owner, _, attribute = name.rpartition(".")
        parameter = self.model.get_submodule(owner)._parameters.get(attribute)
        return parameter is not None and parameter.requires_grad

    def tables(self) -> dict[str, str]:
        """The table of users and that of items, by their side, if the model is nothing else."""
        if not has_users_and_items(self.dataset) or has_graphs(self.model):
            return {}
        found = {self.side(name): name for name in self.weights}
        parameters = {id(weight.values) for weight in self.weights.values()}
        whole = {id(parameter) for parameter in self.model.parameters()} <= parameters
        is_pair = set(found) == {"user", "item"} and len(self.weights) == 2
        if not (whole and is_pair) or len({weight.n_columns for weight in self.weights.values()}) > 1:
            return {}
        modules = (self.model.get_submodule(name.rpartition(".")[0]) for name in found.values())
        return found if all(isinstance(module, nn.Embedding) for module in modules) else {}

    def side(self, name: str) -> str | None:
        """Whose table the weight ``name`` is and nothing else, "user" or "item"."""
        first, *others = self.axes[name]
        if first is None or first.extra or len(first.places) > 1 or any(axis is not None for axis in others):
            return None
        sides = {self.rows["fields"][f]: side for f, side in self.side_fields.items()}
        return sides.get(first.places[0])

    @property
    def side_fields(self) -> dict[str, str]:
        fields = {self.dataset.uid_field: "user", self.dataset.iid_field: "item"}
        fields[getattr(self.dataset, "entity_field", None)] = "item"
        return {name: side for name, side in fields.items() if name in self.rows["fields"]}

    def moved(self, name: str) -> csr_matrix:
        """The old entries of a sparse weight at their place of today: (rows, columns), float32."""
        weight, axes = self.weights[name], self.axes[name]
        values, columns, offsets = (part.cpu().numpy() for part in parts_in(self.state, name))
        n_old = int(np.prod([self._old_size(axis, size) for axis, size in zip(axes[1:], weight.shape[1:])]))
        codes = csr_matrix(
            (values.astype(np.float32), columns.astype(np.int64), offsets), (len(offsets) - 1, n_old)
        )
        if axes[0] is not None:
            codes = moved(codes, self.entries(axes[0]))
        if len(axes) == 2 and axes[1] is not None:
            codes = moved(codes.T.tocsr(), self.entries(axes[1])).T.tocsr()
        return codes

    def entries(self, axis: Axis) -> NDArray[np.int64]:
        order = [place for place in self.old_order if place in axis.places]
        if len(axis.places) > 1 and axis.places[0] != order[0] and self._users_first(axis):
            order = sorted(order, key=lambda place: place != axis.places[0])
        return axis.old_entries(self.maps, self.old_sizes, order)

    def _users_first(self, axis: Axis) -> bool:
        return not any(axis in axes and is_by_column(self.model, name) for name, axes in self.axes.items())

    def _old_size(self, axis: Axis | None, size: int) -> int:
        return size if axis is None else sum(self.old_sizes[place] for place in axis.places) + axis.extra
