"""The items that each user has interacted with, and how many users each item has."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, Ids, column_type, offsets_of

# which of a user's items an artifact knows: those in all of the data, those in the training data, or none
LEVELS = ("all", "trained", "none")


class UserHistories:
    """The distinct items of each user: first those trained on, then the others, each part ascending.

    Attributes:
        level: one of `LEVELS`: which items are known.
    """

    def __init__(self, n_items: int, level: str, parts: dict[str, NDArray]):
        self.n_items, self.level, self._parts = n_items, level, parts

    @classmethod
    def of(cls, trained: CSR, all: CSR, n_items: int, level: str) -> "UserHistories":
        """What is known at ``level`` of ``trained`` and ``all``, a list for each user, which may repeat items."""
        keys = _keys(trained, n_items)
        if level == "none":
            popularity = np.bincount(keys % n_items, minlength=n_items)
            return cls(n_items, level, {"popularity": _smallest(popularity)})
        parts = {"trained": _smallest(np.bincount(keys // n_items, minlength=trained.n_rows))}
        if level == "all":
            keys = np.concatenate([keys, np.setdiff1d(_keys(all, n_items), keys, assume_unique=True)])
            keys = keys[np.argsort(keys // n_items, kind="stable")]
            parts["counts"] = _smallest(np.bincount(keys // n_items, minlength=trained.n_rows))
        parts["items"] = (keys % n_items).astype(column_type(n_items))
        return cls(n_items, level, parts)

    @classmethod
    def read(cls, artifact: Artifact) -> "UserHistories":
        """What ``artifact`` knows.

        Raises:
            DSLError: if its arrays make no sense.
        """
        n_users, n_items = artifact.header["n_users"], artifact.header["n_items"]
        names = {name for name in artifact.arrays if name.startswith("seen.") or name == "popularity"}
        if names == {"popularity"}:
            return cls(n_items, "none", {"popularity": artifact.array("popularity", "u1 u2 u4", (n_items,))})
        level = "all" if "seen.counts" in names else "trained"
        if names != {f"seen.{name}" for name in ("items", "trained", *["counts"] * (level == "all"))}:
            artifact.refuse("must have either popularity or seen.items, seen.trained and perhaps seen.counts")
        parts = {
            name: artifact.array(f"seen.{name}", "u1 u2 u4", (n_users,))
            for name in ("trained", "counts")
            if f"seen.{name}" in names
        }
        counts = parts.get("counts", parts["trained"])
        if (counts < parts["trained"]).any():
            artifact.refuse("seen.trained must be at most seen.counts")
        parts["items"] = artifact.array("seen.items", "u1 u2 u4", (int(counts.sum(dtype=np.int64)),))
        if parts["items"].max(initial=0) >= n_items:
            artifact.refuse(f"seen.items must be within 0..{n_items - 1}")
        return cls(n_items, level, parts)

    def arrays(self) -> dict[str, NDArray]:
        """The arrays that `read` reads, by name."""
        return {name if name == "popularity" else f"seen.{name}": array for name, array in self._parts.items()}

    def lists(self, users: Ids, level: str) -> CSR:
        """The items of ``users`` (n,), each list ascending; ``level`` must be known."""
        starts = self._offsets[users]
        counts = self._parts["counts" if level == self.level == "all" else "trained"][users].astype(np.int64)
        offsets = offsets_of(counts)
        items = self._parts["items"][np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)]
        # a file may repeat an item
        keys = _keys(CSR(offsets, items.astype(np.int64)), self.n_items)
        return CSR(offsets_of(np.bincount(keys // self.n_items, minlength=len(users))), keys % self.n_items)

    @cached_property
    def popularity(self) -> Ids:
        """(n_items,) how many users have each item in the training data."""
        if self.level == "none":
            return self._parts["popularity"].astype(np.int64)
        everyone = np.arange(len(self._parts["trained"]))
        return np.bincount(self.lists(everyone, "trained").columns, minlength=self.n_items)

    @cached_property
    def _offsets(self) -> Ids:
        return offsets_of(self._parts.get("counts", self._parts["trained"]))


def _keys(lists: CSR, n_items: int) -> Ids:
    """A number for each list and item, distinct and ascending."""
    keys = lists.row_of_entry() * n_items + lists.columns
    # sorted already, mostly
    if (keys[1:] > keys[:-1]).all():
        return keys
    # np.unique takes 20 times as long
    keys.sort()
    return keys[np.append(True, keys[1:] > keys[:-1])]


def _smallest(numbers: NDArray) -> NDArray[np.unsignedinteger]:
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
