"""Training on from an earlier model, for the users and items of today."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from logging import getLogger
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor, nn

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.config import DSLConfig
from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.data.trained_on import trained_on
from recbole_dsl.initialisation.held_out import best_damping
from recbole_dsl.initialisation.recode import (
    damped,
    filled,
    folded_in,
    largest_of,
    mean_code,
    new_rows,
    on_budget,
    recode,
)
from recbole_dsl.sparse.compressed_rows import new_offsets, row_blocks, smallest_unsigned
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.training.field_start import field_budgets
from recbole_dsl.training.model_state import drop_caches
from recbole_dsl.training.old_model import OldModel
from recbole_dsl.training.token_axes import Axis

# of the interactions that new rows are folded in from
_DAMPING = 0.25
_started: "WeakKeyDictionary[nn.Module, Night]" = WeakKeyDictionary()


@dataclass
class Night:
    """What a warm start has done.

    Attributes:
        run: the name of the run that it started from.
        rows: field -> how many of its tokens were there before, are new, and are gone.
        weights: sparse weight -> how many of its alive entries were alive before, and how many have come.
        recoded: the tables that were coded anew.
        new: fields of users and items -> a bit for each id from 1 on, whether its token is new, packed into bytes.
        damping: of the interactions, chosen on the first night.
        seen: a sample of the interactions that the run before was trained on.
        before: those of the nights before, without what was new then.
    """

    run: str
    seen: Tensor
    before: list[dict[str, Any]]
    rows: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, list[int]] = field(default_factory=dict)
    recoded: list[str] = field(default_factory=list)
    new: dict[str, Tensor] = field(default_factory=dict)
    damping: float = _DAMPING

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "run": self.run,
            "rows": self.rows,
            "weights": self.weights,
            "recoded": self.recoded,
            "new": self.new,
            "damping": self.damping,
        }


def has_nothing_new(path: str, dataset: Dataset, model: str) -> bool:
    """Whether the file at ``path`` was trained on the very interactions of ``dataset``, the training part.

    Raises:
        DSLError: if it is not a whole checkpoint of ``model``.
    """
    seen = read_checkpoint(path, model=model, option="warm_start")["trained_on"]
    return bool(seen) and seen["digest"] == trained_on(dataset)["digest"]


def warm_start(config: Config, model: AbstractRecommender, dataset: Dataset) -> Night:
    """Give ``model``, which is sparse, the weights of the file that the option ``warm_start`` names; once.

    Tokens decide: rows, and columns of layers, go to where their user, item or other token is today. What is gone
    gives its weights back. The number of alive weights of each tensor is what `sparsify` made it, or what
    `start_fields` makes it.

    Args:
        dataset: the training part.

    Returns:
        what was done.

    Raises:
        DSLError: if the file is no checkpoint, of another model or width, has no user or item of the data, or if
            there are fewer weights than rows; nothing is changed then.
    """
    if model not in _started:
        old = OldModel(config, model, dataset, DSLConfig.build(config))
        old.check()
        with torch.no_grad():
            _started[model] = _Start(old).apply()
    return _started[model]


class _Start:
    def __init__(self, old: OldModel):
        self.old, self.model, self.dataset, self.options = old, old.model, old.dataset, old.options
        self.weights = old.weights
        new = {name: weight for name, weight in self.weights.items() if weight.awaits_data}
        self.budgets = {name: weight.nnz for name, weight in self.weights.items()}
        self.budgets |= field_budgets(self.model, new, self.options.budget)
        dataset = old.dataset
        interactions = dataset.inter_matrix("csr") if has_users_and_items(dataset) else None
        self.interactions = None if interactions is None else damped(interactions, _DAMPING)
        seen = old.checkpoint["trained_on"].get("sample", torch.empty(0, dtype=torch.int64))
        before = [{**night, "new": {}} for night in old.checkpoint["nights"]]
        self.night = Night(old.checkpoint["run"], seen, before, old.counts, new=self._new_tokens())

    def apply(self) -> Night:
        tables = self.old.tables() if self._recodes() else {}
        if tables:
            self._recode(tables)
        kept = {name: self.old.moved(name) for name in self.weights if name not in self.night.recoded}
        codes = {name: self._with_new(name, kept) for name in kept}
        for name, code in codes.items():
            self._set(name, code, kept[name])
        self._take_dense()
        self._say()
        return self.night

    def _new_tokens(self) -> dict[str, Tensor]:
        places = {field: self.old.rows["fields"][field] for field in self.old.side_fields}
        is_new = {field: self.old.maps[place][1:] < 0 for field, place in places.items()}
        return {field: torch.from_numpy(np.packbits(bits)) for field, bits in is_new.items()}

    def _recodes(self) -> bool:
        method = self.options.warm_start_rows
        is_sparse = all(weight.nnz < weight.numel for weight in self.weights.values())
        return method == "recode" or (method is None and is_sparse)

    def _recode(self, tables: Mapping[str, str]) -> None:
        sides = tables["user"], tables["item"]
        kept = [self.old.moved(name) for name in sides]
        budgets = tuple(self.budgets[name] for name in sides)
        interactions = self.dataset.inter_matrix("csr")
        before = [night["damping"] for night in self.night.before if night["recoded"]]
        # the choice takes twice the time of all that follows
        self.night.damping = (
            before[-1] if before else best_damping(*kept, interactions, budgets, self.options.seed)
        )
        interactions = damped(interactions, self.night.damping)
        for name, codes, old in zip(sides, recode(*kept, interactions, budgets), kept):
            self._set(name, codes, old)
            self.night.recoded.append(name)

    def _with_new(self, name: str, kept: Mapping[str, csr_matrix]) -> csr_matrix:
        """The moved entries of a weight with the codes of what is new, on its budget."""
        budget, axes = self.budgets[name], self.old.axes[name]
        code, is_turned = kept[name], axes[0] is None and len(axes) == 2 and axes[1] is not None
        axis = axes[1] if is_turned else axes[0]
        if axis is not None:
            code = code.T.tocsr() if is_turned else code
            code = self._add_new(name, axis, code, budget, is_turned, kept)
            code = code.T.tocsr() if is_turned else code
        elif code.nnz == budget:
            return code
        return on_budget(code, budget, self.old.side(name) == "user")

    def _add_new(
        self, name: str, axis: Axis, code: csr_matrix, budget: int, is_turned: bool, kept: Mapping[str, csr_matrix]
    ) -> csr_matrix:
        """``code`` and that of its new rows, which get as many entries as others, or what those leave."""
        entries = self.old.entries(axis)
        parts, start = [], 0
        n_new = int((entries < 0).sum())
        for place in axis.places:
            stop = min(start + len(self.old.maps[place]), code.shape[0])
            some = code[start:stop]
            new = np.flatnonzero(entries[start:stop] < 0)
            # the padding is nobody's
            new = new[new + start > 0]
            if len(new):
                left = max(round(budget / code.shape[0] * n_new), budget - code.nnz)
                share = min(ceil(left * len(new) / n_new), len(new) * code.shape[1])
                some = some + self._new_code(name, place, some, new, share, is_turned, start, kept)
            parts.append(some.tocsr())
            start = stop
        return vstack([*parts, code[start:]], format="csr", dtype=np.float32)

    def _new_code(
        self,
        name: str,
        place: int,
        old: csr_matrix,
        new: NDArray[np.int64],
        share: int,
        is_turned: bool,
        start: int,
        kept: Mapping[str, csr_matrix],
    ) -> csr_matrix:
        if self.options.warm_start_rows == "random":
            fresh = _codes_of(self.weights[name])
            fresh = fresh.T.tocsr() if is_turned else fresh
            own = np.isin(np.arange(old.shape[0]), new).astype(np.float32)
            return (diags(own) @ fresh[start : start + old.shape[0]]).tocsr()
        sides = {self.old.rows["fields"][f]: side for f, side in self.old.side_fields.items()}
        side = sides.get(place)
        if side is None or self.interactions is None:
            mean = mean_code(old)
            return new_rows(old.shape, new, lambda rows: np.tile(mean, (len(rows), 1)), share)
        matrix = self.interactions if side == "user" else self.interactions.T.tocsr()
        if matrix.shape[0] < old.shape[0]:
            # entities that are no items
            more = csr_matrix((old.shape[0] - matrix.shape[0], matrix.shape[1]), dtype=np.float32)
            matrix = vstack([matrix, more], format="csr")
        partners = self._partners(name, side, old, matrix, kept)
        return folded_in(old, new, partners, matrix, share)

    def _partners(
        self, name: str, side: str, old: csr_matrix, matrix: csr_matrix, kept: Mapping[str, csr_matrix]
    ) -> csr_matrix:
        """Codes of the other side: the table most like this one by its name, or the sums of these rows' codes."""
        other = "item" if side == "user" else "user"
        places = {self.old.rows["fields"][f] for f, s in self.old.side_fields.items() if s == other}
        found: dict[str, csr_matrix] = {}
        for one, code in kept.items():
            axis, start = self.old.axes[one][0], 0
            if axis is None or code.shape[1] != old.shape[1]:
                continue
            for place in axis.places:
                if place in places:
                    found[one] = code[start : start + matrix.shape[1]]
                start += len(self.old.maps[place])
        found = {one: code for one, code in found.items() if code.shape[0] == matrix.shape[1] and code.nnz}
        if found:
            return found[max(found, key=lambda one: (one == name, SequenceMatcher(None, one, name).ratio()))]
        across = matrix.T.tocsr()
        blocks = (
            (start, (across[start:stop] @ old).toarray())
            for start, stop in row_blocks(len(across.indptr) - 1, old.shape[1])
        )
        shape = across.shape[0], old.shape[1]
        return largest_of(blocks, shape, ceil(old.nnz / old.shape[0] * shape[0]), by_share=True)

    def _set(self, name: str, code: csr_matrix, before: csr_matrix) -> None:
        weight, budget = self.weights[name], self.budgets[name]
        code = filled(code, budget, weight.padding_row, self.options.seed)
        code.sort_indices()
        alive, was = (
            csr_matrix((np.ones(some.nnz, np.int8), some.indices, some.indptr), some.shape)
            for some in (code, before)
        )
        both = int(alive.multiply(was).sum(dtype=np.int64))
        self.night.weights[name] = [both, budget - both]
        offsets = torch.from_numpy(code.indptr.astype(np.int64))
        weight.load_state_dict(
            {
                "values": torch.from_numpy(code.data.astype(np.float32)),
                "columns": torch.from_numpy(code.indices.astype(np.int64)).to(smallest_unsigned(weight.n_columns)),
                "row_offsets": offsets.to(new_offsets(0, budget).dtype),
            }
        )

    def _take_dense(self) -> None:
        own = self.model.state_dict(keep_vars=True)
        for name, axes in self.old.axes.items():
            tensor = own.get(name)
            if tensor is None or name not in self.old.state or self.old.is_of_the_data(name):
                continue
            before = self.old.state[name].to(tensor.device)
            for number, axis in enumerate(axes):
                if axis is None:
                    continue
                entries = torch.from_numpy(self.old.entries(axis)).to(before.device)
                shape = [1] * before.dim()
                shape[number] = -1
                taken = before.index_select(number, entries.clamp(min=0))
                is_random = self.options.warm_start_rows == "random" and tensor.shape == taken.shape
                other = tensor.detach() if is_random else before.mean(number, keepdim=True)
                before = torch.where((entries < 0).view(shape), other, taken)
            tensor.detach().copy_(before)
        drop_caches(self.model)

    def _say(self) -> None:
        rows = "; ".join(
            f"{name}: {kept:,} kept, {new:,} new, {gone:,} gone"
            for name, (kept, new, gone) in self.night.rows.items()
        )
        weights = "; ".join(
            f"{name}: {same:,} stay, {came:,} moved" for name, (same, came) in self.night.weights.items()
        )
        recoded = f"; coded anew: {', '.join(self.night.recoded)}" if self.night.recoded else ""
        getLogger().info(
            f"{self.old.named}: {rows}. Weights: {weights}{recoded}. "
            "The optimizer begins anew: its moments are dropped"
        )


def _codes_of(weight: SparseWeight) -> csr_matrix:
    parts = (weight.values.detach().cpu(), weight.columns.cpu().long(), weight.row_offsets.cpu())
    return csr_matrix(tuple(part.numpy() for part in parts), (weight.n_rows, weight.n_columns))
