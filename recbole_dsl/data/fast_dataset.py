"""RecBole's datasets without loops over interactions; ids, order and parts are those of RecBole."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType
from torch import Tensor

from recbole_dsl.data import dividing
from recbole_dsl.data.columns import TokenIds, ids_by_appearance, joint_codes, read_columns
from recbole_dsl.data.lazy_columns import column_of

_OF_RECBOLE = "recbole.data.dataset."


@cache
def fast_class(kind: type[Dataset]) -> type[Dataset]:
    """A subclass of ``kind`` in which the methods of `_Fast` replace those of RecBole's ``Dataset``.

    A method that the user has replaced stays as it is. Instances are pickled as ones of ``kind``.
    """
    methods = {name: method for name, method in vars(_Fast).items() if not name.startswith("__")}
    if not kind.__module__.startswith(_OF_RECBOLE):
        # other methods of its own may read tokens
        del methods["_load_feat"]
    own = {name: method for name, method in methods.items() if _is_of_recbole(kind, name)}

    def __reduce_ex__(self: Dataset, protocol: Any) -> tuple:
        plain = kind.__new__(kind)
        vars(plain).update(vars(self))
        # later protocols insist on an object of the class that the pickle names
        return plain.__reduce_ex__(1)

    def __copy__(self: Dataset) -> Dataset:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    more = {"__reduce_ex__": __reduce_ex__, "__copy__": __copy__, "__module__": kind.__module__}
    return type(
        kind.__name__, (kind,), {**own, **more, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    )


def _is_of_recbole(kind: type[Dataset], name: str) -> bool:
    method = getattr(kind, name)
    function = getattr(method, "fget", method)
    return method is getattr(Dataset, name) and function.__module__ == Dataset.__module__


class _Fast:
    """Methods for `fast_class`."""

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        columns = _plain_columns(self, filepath, source)
        frame = columns and read_columns(
            filepath,
            {f"{field}:{kind.value}": kind == FeatureType.FLOAT for field, kind in columns.items()},
            self.config,
        )
        if frame is None or not columns:
            self.logger.debug(f"[{filepath}] is read by RecBole.")
            return Dataset._load_feat(self, filepath, source)
        frame.columns = list(columns)
        if source != "link":
            for field, kind in columns.items():
                self.field2source[field] = source
                self.field2type[field] = kind
                self.field2seqlen[field] = 1
                if kind == FeatureType.FLOAT:
                    self.field2bucketnum[field] = 2
        return frame

    def _filter_inter_by_user_or_item(self) -> None:
        # RecBole copies all interactions, also where no features say who there is
        if self.user_feat is not None or self.item_feat is not None:
            Dataset._filter_inter_by_user_or_item(self)

    def _filter_by_inter_num(self) -> None:
        sides = []
        for field, name in ((self.uid_field, "user"), (self.iid_field, "item")):
            interval = self._parse_intervals_str(self.config[f"{name}_inter_num_interval"])
            sides.append((field, f"{name}_feat", interval))
        if None in (self.uid_field, self.iid_field) or all(interval is None for *_, interval in sides):
            return
        counted = [_Counted(self, *side) for side in sides]
        left = np.ones(len(self.inter_feat), bool)
        while True:
            banned = [one.banned(left) for one in counted]
            if not any(ban.any() for ban in banned):
                break
            for one, ban in zip(counted, banned):
                one.drop(ban)
                left &= ~ban[one.codes]
        if not left.all():
            self.inter_feat = self.inter_feat[left]
        for one in counted:
            one.drop_features()

    def _remap(self, remap_list: list) -> None:
        if not remap_list:
            return
        columns = []
        for feat, field, kind in remap_list:
            column = feat[field]
            columns.append(column if kind == FeatureType.TOKEN else column.agg(np.concatenate))
        codes, tokens = joint_codes(columns)
        ids, names = ids_by_appearance(codes[0] if len(codes) == 1 else np.concatenate(codes), tokens)
        numbers = TokenIds(names)
        for (feat, field, kind), part in zip(remap_list, np.split(ids, np.cumsum([len(c) for c in codes])[:-1])):
            if field not in self.field2id_token:
                self.field2id_token[field] = names
                self.field2token_id[field] = numbers
            if kind == FeatureType.TOKEN:
                feat[field] = part
            else:
                feat[field] = np.split(part, np.cumsum([len(value) for value in feat[field]])[:-1])

    def split_by_ratio(self, ratios: Sequence[float], group_by: str | None = None) -> list[Dataset]:
        if group_by is None:
            return Dataset.split_by_ratio(self, ratios, group_by)
        self.logger.debug(f"split by ratios [{ratios}], group_by=[{group_by}]")
        shares = [ratio / sum(ratios) for ratio in ratios]
        keys = column_of(self.inter_feat, group_by).numpy()
        return _parts(self, dividing.by_ratios(keys, lambda size: self._calcu_split_ids(size, shares)))

    def leave_one_out(self, group_by: str | None, leave_one_mode: str) -> list[Dataset]:
        order = {"valid_and_test": (0, 1, 2), "valid_only": (0, 1, None), "test_only": (0, None, 1)}
        if group_by is None or leave_one_mode not in order:
            return Dataset.leave_one_out(self, group_by, leave_one_mode)
        self.logger.debug(f"leave one out, group_by=[{group_by}], leave_one_mode=[{leave_one_mode}]")
        keys = column_of(self.inter_feat, group_by).numpy()
        places = dividing.leave_out(keys, max(p or 0 for p in order[leave_one_mode]))
        none = np.zeros(0, np.int64)
        return _parts(self, [none if part is None else places[part] for part in order[leave_one_mode]])

    def time_based_split(self, ratios: Sequence[float], group_by: str | None) -> list[Dataset]:
        is_known = group_by is not None and self.time_field in self.inter_feat
        if not is_known or column_of(self.inter_feat, self.time_field).ndim > 1:
            return Dataset.time_based_split(self, ratios, group_by)
        self.logger.debug(f"time-based split with ratios [{ratios}], group_by=[{group_by}]")
        shares = [ratio / sum(ratios) for ratio in ratios]
        keys, times = (column_of(self.inter_feat, field).numpy() for field in (group_by, self.time_field))
        latest = np.percentile(times, 100 * (1 - shares[-1]))
        return _parts(self, dividing.by_time(keys, times, latest, shares[0] / (1 - shares[2])))

    def _history_matrix(
        self, row: str, value_field: str | None = None, max_history_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._check_field("uid_field", "iid_field")
        value = None if value_field is None else self.inter_feat.interaction.get(value_field)
        if value_field is not None and (value is None or value.ndim > 1):
            return Dataset._history_matrix(self, row, value_field, max_history_len)
        order = torch.randperm(len(self.inter_feat))
        fields = self.uid_field, self.iid_field
        users, items = (column_of(self.inter_feat, field)[order] for field in fields)
        rows, columns = (users, items) if row == "user" else (items, users)
        n_rows, n_columns = (self.user_num, self.item_num) if row == "user" else (self.item_num, self.user_num)
        groups = dividing.Groups(rows.numpy())
        longest = int(groups.counts.max())
        width = longest if max_history_len is None else min(max_history_len, longest)
        if width > n_columns * 0.2:
            self.logger.warning(
                f"Max value of {row}'s history interaction records has reached "
                f"{width / n_columns * 100}% of the total.",
                # attributed to RecBole, whose warnings the console does not show
                stacklevel=2,
            )
        places = torch.from_numpy(groups.cut([np.minimum(groups.counts, width)])[0].astype(np.int64))
        lengths = torch.zeros(n_rows, dtype=torch.int64)
        kept = torch.from_numpy(np.minimum(groups.counts, width))
        lengths[rows[torch.from_numpy(groups.firsts.astype(np.int64))]] = kept
        ranks = torch.arange(len(places)) - torch.repeat_interleave(kept.cumsum(0) - kept, kept)
        at = rows[places], ranks
        matrix = torch.zeros(n_rows, width, dtype=torch.int64)
        matrix[at] = columns[places]
        values = torch.zeros(n_rows, width)
        values[at] = torch.ones(1) if value is None else value[order][places].float()
        return matrix, values, lengths

    @property
    def avg_actions_of_users(self) -> float:
        return _mean_count(column_of(self.inter_feat, self.uid_field))

    @property
    def avg_actions_of_items(self) -> float:
        return _mean_count(column_of(self.inter_feat, self.iid_field))


class _Counted:
    """The users or the items of a dataset, whose numbers of interactions must lie in an interval."""

    def __init__(self, dataset: Dataset, field: str, feat_name: str, interval: list | None):
        self._dataset, self._feat_name, self._interval = dataset, feat_name, interval
        feat = getattr(dataset, feat_name)
        columns = [dataset.inter_feat[field], *([] if feat is None else [feat[field]])]
        (self.codes, *rest), values = joint_codes(columns)
        self._n = len(values)
        self._features = rest[0] if rest else None
        self._left = np.ones(0 if feat is None else len(feat), bool)
        if interval and len(interval) > 1:
            dataset.logger.warning("More than one interval of interaction number are given!")

    def banned(self, left: np.ndarray) -> np.ndarray:
        """(values,) which have to be dropped, given the interactions that are ``left``."""
        if not self._interval:
            return np.zeros(self._n, bool)
        counts = np.bincount(self.codes if left.all() else self.codes[left], minlength=self._n)
        banned = (counts > 0) & ~self._dataset._within_intervals(counts, self._interval)
        if self._features is not None:
            listed = np.unique(self._features[self._left])
            banned[listed] |= counts[listed] < self._interval[0][1]
        return banned

    def drop(self, banned: np.ndarray) -> None:
        """Mark the feature rows of those who are ``banned``."""
        if self._features is not None:
            self._left &= ~banned[self._features]

    def drop_features(self) -> None:
        """Remove the marked rows from the dataset's features."""
        if not self._left.all():
            setattr(self._dataset, self._feat_name, getattr(self._dataset, self._feat_name)[self._left])


def _plain_columns(dataset: Dataset, path: str, source: Any) -> dict[str, FeatureType]:
    """The columns to read of a file; empty if any of them holds sequences."""
    chosen, left_out = dataset._get_load_and_unload_col(source)
    with open(path, encoding=dataset.config["encoding"]) as file:
        head = file.readline()[:-1]
    columns = {}
    for part in head.split(dataset.config["field_separator"]):
        field, kind = part.split(":")
        if (chosen is None or field in chosen) and field not in (left_out or ()):
            columns[field] = FeatureType(kind)
    known = isinstance(source, FeatureSource) or source != "link" or set(columns) <= set(dataset.field2type)
    is_plain = known and not any(kind.value.endswith("seq") for kind in columns.values())
    return columns if is_plain and len(head.split(dataset.config["field_separator"])) > 1 else {}


def _parts(dataset: Dataset, places: Sequence[np.ndarray]) -> list[Dataset]:
    dataset._drop_unused_col()
    return [dataset.copy(dataset.inter_feat[torch.from_numpy(some)]) for some in places]


def _mean_count(column: Any) -> float:
    counts = np.bincount(np.asarray(column))
    return np.mean(counts[counts > 0])
