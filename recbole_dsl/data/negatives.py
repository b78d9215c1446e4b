"""Negative items by the batch: importing this changes RecBole's samplers, which draw the same items as before."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.sampler import KGSampler, RepeatableSampler, Sampler
from recbole.sampler.sampler import AbstractSampler
from torch import Tensor

from recbole_dsl.data.lazy_columns import column_of
from recbole_dsl.data.sampling import Pairs, UsedItems
from recbole_dsl.patching import changes

_ALL = slice(None)
# above every id
_VALUES = 2**32
# numbers that are drawn at a time beyond those that are surely needed
_MORE = 4096
# RecBole's methods
_sampling = AbstractSampler.sampling
_UNIFORM = Sampler._uni_sampling, RepeatableSampler._uni_sampling
# for places among the drawn, and the values drawn there: which must be drawn again
_Check = Callable[[Any, np.ndarray], np.ndarray]


def used_items(sets: np.ndarray) -> UsedItems:
    """The items that each key must not get, from RecBole's array with a set for each key."""
    keys = np.repeat(np.arange(len(sets)), [len(values) for values in sets])
    values = np.fromiter(chain.from_iterable(sets), np.int64, len(keys))
    return UsedItems(Pairs([(keys, values)], len(sets), _VALUES), 0)


def sample_by_users(
    sampler: Sampler | RepeatableSampler, users: np.ndarray, counts: np.ndarray, items: np.ndarray, num: int
) -> np.ndarray:
    """Negative items, drawn for one user after the other, as RecBole does for an evaluation.

    Args:
        sampler: one of these classes.
        users: (n,) int64.
        counts: (n,) int64: how many of ``items`` each user has.
        items: (counts.sum(),) int64.
        num: how many to draw for each item.

    Returns:
        (counts.sum() * num,) int64: those of the first user, then of the second...
    """
    drawn, stops = counts * num, np.cumsum(counts * num)
    known = type(sampler).sample_by_key_ids is _sample_by_key_ids
    if known and type(sampler).sample_by_user_ids is _sample_by_user_ids:
        checks = _equal(counts, items, num)
    elif known and (used := _used_ids(sampler)) is not None:
        checks = _flagged(used, users, sampler.item_num)
    else:
        parts = zip(users, np.split(items, np.cumsum(counts)[:-1]))
        parts = (sampler.sample_by_user_ids(np.full(len(own), user), own, num).numpy() for user, own in parts)
        return np.concatenate(list(parts))
    values, draw = np.empty(stops[-1], np.int64), _Ahead.of(sampler, stops[-1])
    for stop, n, is_used in zip(stops.tolist(), drawn.tolist(), checks):
        values[stop - n : stop] = _drawn(draw or sampler.sampling, n, is_used)
    if draw:
        draw.end()
    return values


def _equal(counts: np.ndarray, items: np.ndarray, num: int) -> Iterator[_Check]:
    """For each user whether values are the item that they are drawn for; a user's items take turns."""
    drawn = counts * num
    stops = np.cumsum(drawn)
    places = np.arange(stops[-1]) - np.repeat(stops - drawn, drawn)
    of_values = items[np.repeat(np.cumsum(counts) - counts, drawn) + places % np.repeat(counts, drawn)]
    for stop, n in zip(stops.tolist(), drawn.tolist()):
        yield partial(_is_equal, of_values[stop - n : stop])


def _is_equal(own: np.ndarray, places: Any, values: np.ndarray) -> np.ndarray:
    return own[places] == values


def _flagged(used: UsedItems, users: np.ndarray, n_items: int) -> Iterator[_Check]:
    """For each user whether values are used, by one row of flags, which each in turn sets and clears."""
    is_used = np.zeros(n_items, bool)
    owners, items = used.items_of(users)
    stops = np.searchsorted(owners, np.arange(1, len(users) + 1)).tolist()
    for first, stop in zip([0, *stops], stops):
        own = items[first:stop]
        is_used[own] = True
        yield lambda _, values: is_used[values]
        is_used[own] = False


class _Ahead:
    """Draws what a sampler's uniform distribution gives in many calls, in few of them.

    Call it with how many numbers to give back: (n,) int64. At the `end` NumPy's generator is where it would be.
    """

    def __init__(self, n_items: int, n: int):
        self._n_items, self._values, self._at = n_items, np.random.randint(1, n_items, n), 0

    @classmethod
    def of(cls, sampler: AbstractSampler, n: int) -> "_Ahead | None":
        """One that begins with ``n``, all of which will be asked for; None if ``sampler`` draws in another way."""
        of_class = type(sampler)
        is_usual = of_class.sampling is _sampling and of_class._uni_sampling in _UNIFORM
        return cls(sampler.item_num, n) if is_usual and sampler.distribution == "uniform" else None

    def __call__(self, n: int) -> np.ndarray:
        if self._at + n > len(self._values):
            self._before = np.random.get_state()
            self._new = max(n, _MORE)
            more = np.random.randint(1, self._n_items, self._new)
            self._values, self._at = np.concatenate([self._values[self._at :], more]), 0
        self._at += n
        return self._values[self._at - n : self._at]

    def end(self) -> None:
        """Let NumPy's generator go on behind the last number that was given."""
        if unused := len(self._values) - self._at:
            np.random.set_state(self._before)
            np.random.randint(1, self._n_items, self._new - unused)


@wraps(AbstractSampler.sample_by_key_ids)
def _sample_by_key_ids(self: AbstractSampler, key_ids: Any, num: int) -> Tensor:
    used, keys = _used_ids(self), np.array(key_ids).astype(np.int64)
    if used is None or not len(keys) or keys.min() < 0 or keys.max() >= len(self.used_ids):
        return _sample_by_key_ids.__wrapped__(self, key_ids, num)
    keys = np.tile(keys, num)
    return torch.from_numpy(
        _drawn(self.sampling, len(keys), lambda places, values: used.have(keys[places], values))
    )


@wraps(RepeatableSampler.sample_by_user_ids)
def _sample_by_user_ids(self: RepeatableSampler, user_ids: Any, item_ids: Any, num: int) -> Tensor:
    if type(self).sample_by_key_ids is not _sample_by_key_ids or not len(user_ids):
        return _sample_by_user_ids.__wrapped__(self, user_ids, item_ids, num)
    items = np.tile(item_ids, num)
    return torch.from_numpy(_drawn(self.sampling, len(items), partial(_is_equal, items)))


@wraps(RepeatableSampler.get_used_ids)
def _get_used_ids(self: RepeatableSampler) -> np.ndarray:
    # RecBole's array, with the same empty set for every user
    return np.full(self.user_num, frozenset(), object)


@wraps(AbstractSampler._pop_sampling)
def _pop_sampling(self: AbstractSampler, sample_num: int) -> np.ndarray:
    table = vars(self).get("_alias_arrays")
    if table is None or table[0] is not self.prob:
        keys = list(self.prob)
        columns = (np.array(keys), np.array(list(self.prob.values())), np.array([self.alias[key] for key in keys]))
        table = self._alias_arrays = (self.prob, *columns)
    _, keys, kept, other = table
    places, drawn = np.random.randint(0, len(keys), sample_num), np.random.random(sample_num)
    return np.where(kept[places] > drawn, keys[places], other[places])


@wraps(AbstractSampler._build_alias_table)
def _build_alias_table(self: AbstractSampler) -> None:
    parts = _CANDIDATES.get(type(self)._get_candidates_list)
    if parts is None:
        _build_alias_table.__wrapped__(self)
        return
    codes, keys = pd.factorize(np.concatenate(parts(self)))
    # Python's sum and power, as NumPy's may differ in the last bits
    shares = [pow(count / len(codes), self.alpha) for count in np.bincount(codes).tolist()]
    total = sum(shares)
    shares = [share / total * len(shares) for share in shares]
    large = deque(place for place, share in enumerate(shares) if share > 1)
    small = deque(place for place, share in enumerate(shares) if share < 1)
    others = [-1] * len(shares)
    while large and small:
        much, little = large.popleft(), small.popleft()
        others[little] = keys[much]
        shares[much] -= 1 - shares[little]
        if shares[much] != 1:
            (small if shares[much] < 1 else large).append(much)
    self.prob, self.alias = dict(zip(keys, shares)), dict(zip(keys, others))


# the arrays of the candidates, of which RecBole makes a list
_CANDIDATES: dict[Any, Callable[[Any], list[np.ndarray]]] = {
    Sampler._get_candidates_list: lambda self: [
        column_of(dataset.inter_feat, self.iid_field).numpy() for dataset in self.datasets
    ],
    RepeatableSampler._get_candidates_list: lambda self: [
        column_of(self.dataset.inter_feat, self.iid_field).numpy()
    ],
    KGSampler._get_candidates_list: lambda self: [self.hid_list, self.tid_list],
}


def _used_ids(sampler: AbstractSampler) -> UsedItems | None:
    """The items that ``sampler`` must not draw; None if its class may change them."""
    if hasattr(sampler.used_ids, "have"):
        return sampler.used_ids
    if type(sampler) not in (Sampler, KGSampler):
        return None
    known = vars(sampler).get("_used_rows")
    if known is None or known[0] is not sampler.used_ids:
        known = sampler._used_rows = (sampler.used_ids, used_items(sampler.used_ids))
    return known[1]


def _drawn(draw: Callable[[int], np.ndarray], n: int, is_used: _Check) -> np.ndarray:
    """(n,) int64: what ``draw`` gives, each drawn again as long as it ``is_used`` at its place."""
    values = np.array(draw(n), np.int64)
    (places,) = is_used(_ALL, values).nonzero()
    while len(places):
        values[places] = drawn = draw(len(places))
        places = places[is_used(places, drawn)]
    return values


@changes(
    "recbole.sampler: methods of AbstractSampler and RepeatableSampler",
    "RecBole looks negative items up one by one, in a set for each user",
    "the process ends",
)
def _install() -> None:
    AbstractSampler.sample_by_key_ids = _sample_by_key_ids
    AbstractSampler._pop_sampling = _pop_sampling
    AbstractSampler._build_alias_table = _build_alias_table
    RepeatableSampler.sample_by_user_ids = _sample_by_user_ids
    RepeatableSampler.get_used_ids = _get_used_ids


_install()
