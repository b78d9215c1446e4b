"""The items that each user has interacted with, and how many users each item has."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, Ids, Mask, ascend, offsets_of, smallest
from recbole_dsl.serving.packed_lists import PackedLists, array_names

# which of a user's items an artifact knows: those in all of the data, those in the training data, or none
LEVELS = ("all", "trained", "none")
# what the flags of the lists say where a user has other items too
_FLAGS = "trained"


class UserHistories:
    """The distinct items of each user, and which of them were trained on.

    Args:
        n_items: how many items there are.
        level: one of `LEVELS`: which items are known.
        lists: the items of each user, where the level is "all" with a flag for those trained on; None for "none".
        popularity: (n_items,) how many users have each item in the training data; it is counted if None.
    """

    def __init__(
        self, n_items: int, level: str, lists: PackedLists | None = None, popularity: NDArray | None = None
    ):
        self.n_items, self.level, self._lists, self._popularity = n_items, level, lists, popularity

    @classmethod
    def of(cls, trained: CSR, all: CSR, n_items: int, level: str) -> "UserHistories":
        """What is known at ``level`` of ``trained`` and ``all``, a list for each user, which may repeat items."""
        keys = _keys(trained, n_items)
        if level == "none":
            return cls(n_items, level, popularity=np.bincount(keys % n_items, minlength=n_items))
        flags = None
        if level == "all":
            trained_on = keys
            keys = _distinct(np.concatenate([keys, _keys(all, n_items)]))
            flags = np.zeros(len(keys), bool)
            flags[np.searchsorted(keys, trained_on)] = True
        return cls(n_items, level, PackedLists.of(_lists(keys, trained.n_rows, n_items), n_items, flags))

    @classmethod
    def read(cls, artifact: Artifact) -> "UserHistories":
        """What ``artifact`` knows.

        Raises:
            DSLError: if its arrays make no sense.
        """
        n_users, n_items = artifact.header["n_users"], artifact.header["n_items"]
        names = {name for name in artifact.arrays if name.startswith("seen.") or name == "popularity"}
        if names == {"popularity"}:
            return cls(n_items, "none", popularity=artifact.array("popularity", "u1 u2 u4", (n_items,)))
        for level, flags in (("all", _FLAGS), ("trained", None)):
            if names == {*array_names("seen", flags)}:
                return cls(n_items, level, PackedLists.read(artifact, "seen", n_users, n_items, flags))
        return _read_first_version(artifact, names)

    def arrays(self) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name."""
        if self._lists is None:
            return {"popularity": smallest(self.popularity)}
        return self._lists.arrays("seen", _FLAGS if self.level == "all" else None)

    def lists(self, users: Ids, level: str) -> CSR:
        """The items of ``users`` (n,), each list ascending; ``level`` must be known, and not "none"."""
        assert self._lists is not None
        lists, is_trained = self._lists.take(users)
        if level != self.level:
            lists = _only(lists, is_trained)
        # a file may repeat an item
        if ascend(lists.columns, lists.offsets):
            return lists
        return _lists(_keys(lists, self.n_items), len(users), self.n_items)

    @cached_property
    def popularity(self) -> Ids:
        """(n_items,) how many users have each item in the training data."""
        if self._popularity is not None:
            return self._popularity.astype(np.int64)
        assert self._lists is not None
        counts = np.zeros(self.n_items, np.int64)
        for lists, is_trained in self._lists.blocks():
            counts += np.bincount(lists.columns[is_trained], minlength=self.n_items)
        return counts


def _read_first_version(artifact: Artifact, names: set[str]) -> UserHistories:
    """What a file of version 1 knows: each user's items, first those trained on."""
    n_users, n_items = artifact.header["n_users"], artifact.header["n_items"]
    level = "all" if "seen.counts" in names else "trained"
    if names != {f"seen.{name}" for name in ("items", "trained", *["counts"] * (level == "all"))}:
        artifact.refuse("must have popularity, or seen.counts, seen.high and seen.low_and_trained or seen.low")
    n_trained = artifact.array("seen.trained", "u1 u2 u4", (n_users,)).astype(np.int64)
    counts = n_trained
    if level == "all":
        counts = artifact.array("seen.counts", "u1 u2 u4", (n_users,)).astype(np.int64)
    if (counts < n_trained).any():
        artifact.refuse("seen.trained must be at most seen.counts")
    items = artifact.array("seen.items", "u1 u2 u4", (int(counts.sum()),)).astype(np.int64)
    if items.max(initial=0) >= n_items:
        artifact.refuse(f"seen.items must be within 0..{n_items - 1}")
    lists = CSR(offsets_of(counts), items)
    places = np.arange(len(items)) - np.repeat(lists.offsets[:-1], counts)
    trained = _only(lists, places < np.repeat(n_trained, counts))
    return UserHistories.of(trained, lists, n_items, level)


def _only(lists: CSR, chosen: Mask) -> CSR:
    """The ids of ``lists`` that are ``chosen``."""
    return CSR(offsets_of(chosen)[lists.offsets], lists.columns[chosen])


def _lists(keys: Ids, n_lists: int, n_items: int) -> CSR:
    """The lists that `_keys` made numbers of."""
    return CSR(offsets_of(np.bincount(keys // n_items, minlength=n_lists)), keys % n_items)


def _keys(lists: CSR, n_items: int) -> Ids:
    """A number for each list and item, distinct and ascending."""
    return _distinct(lists.row_of_entry() * n_items + lists.columns)


def _distinct(keys: Ids) -> Ids:
    """The distinct ones of ``keys``, ascending."""
    # they are already, mostly
    if (keys[1:] > keys[:-1]).all():
        return keys
    # np.unique takes 20 times as long
    keys.sort()
    return keys[np.append(True, keys[1:] > keys[:-1])]
