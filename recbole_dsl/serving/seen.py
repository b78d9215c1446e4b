"""The items that each user has had, and how many users had each item."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.lists import Lists, offsets_of

# which seen items an artifact can have: in all of the data, in the training data, or none
LEVELS = ("all", "trained", "none")


class Seen:
    """Which items users had: distinct for each user, first those trained on and then the others, each ascending.

    Attributes:
        level: one of `LEVELS`: which of them are known.
    """

    def __init__(self, n_items: int, level: str, parts: dict[str, NDArray]):
        self.n_items, self.level, self._parts = n_items, level, parts

    @classmethod
    def of(cls, trained: Lists, all: Lists, n_items: int, level: str) -> "Seen":
        """What is known at ``level`` of ``trained`` and ``all``, one list a user; repeated items count once."""
        popularity = np.bincount(_keys(trained, n_items) % n_items, minlength=n_items)
        if level == "none":
            return cls(n_items, level, {"popularity": popularity.astype(_smallest(popularity))})
        keys = _keys(trained, n_items)
        counts = np.bincount(keys // n_items, minlength=trained.n)
        parts = {"trained": counts.astype(_smallest(counts))}
        if level == "all":
            later = np.setdiff1d(_keys(all, n_items), keys, assume_unique=True)
            owners = np.concatenate([keys, later]) // n_items
            keys = np.concatenate([keys, later])[np.argsort(owners, kind="stable")]
            counts = np.bincount(owners, minlength=trained.n)
            parts["counts"] = counts.astype(_smallest(counts))
        ids = keys % n_items
        parts["items"] = ids.astype(_smallest(np.array([n_items - 1])))
        return cls(n_items, level, parts)

    @classmethod
    def read(cls, artifact: Artifact) -> "Seen":
        """What the file knows.

        Raises:
            DSLError: if it makes no sense.
        """
        n_users, n_items = artifact.header["n_users"], artifact.header["n_items"]
        names = {name for name in artifact.arrays if name.startswith("seen.") or name == "popularity"}
        if names == {"popularity"}:
            return cls(n_items, "none", {"popularity": artifact.array("popularity", "u1 u2 u4", (n_items,))})
        level = "all" if "seen.counts" in names else "trained"
        if names != {f"seen.{name}" for name in ("items", "trained", *["counts"] * (level == "all"))}:
            artifact.refuse("must have either popularity or seen.items, seen.trained and perhaps seen.counts")
        parts = {"trained": artifact.array("seen.trained", "u1 u2 u4", (n_users,))}
        if level == "all":
            parts["counts"] = artifact.array("seen.counts", "u1 u2 u4", (n_users,))
            if (parts["counts"] < parts["trained"]).any():
                artifact.refuse("seen.trained must be at most seen.counts")
        counts = parts.get("counts", parts["trained"])
        n_seen = int(counts.sum(dtype=np.int64))
        parts["items"] = artifact.array("seen.items", "u1 u2 u4", (n_seen,))
        seen = cls(n_items, level, parts)
        if n_seen and parts["items"].max() >= n_items:
            artifact.refuse(f"seen.items must be within 0..{n_items - 1}")
        return seen

    def arrays(self) -> dict[str, NDArray]:
        """What `read` reads."""
        return {name if name == "popularity" else f"seen.{name}": array for name, array in self._parts.items()}

    def lists(self, users: NDArray[np.int64], level: str) -> Lists:
        """What ``users`` (n,) have had, each list ascending; ``level`` must be known."""
        starts = self._offsets[users]
        counts = self._parts["counts" if level == "all" and self.level == "all" else "trained"][users].astype(
            np.int64
        )
        offsets = offsets_of(counts)
        ids = self._parts["items"][np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)]
        # a file may repeat itself
        keys = _keys(Lists(offsets, ids.astype(np.int64)), self.n_items)
        return Lists(offsets_of(np.bincount(keys // self.n_items, minlength=len(users))), keys % self.n_items)

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """(n_items,): how many users had each item in the training data."""
        if self.level == "none":
            return self._parts["popularity"].astype(np.int64)
        everyone = np.arange(len(self._parts["trained"]))
        return np.bincount(self.lists(everyone, "trained").ids, minlength=self.n_items)

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        return offsets_of(self._parts.get("counts", self._parts["trained"]))


def _keys(lists: Lists, n_items: int) -> NDArray[np.int64]:
    """A number for each list and item, distinct and ascending."""
    keys = lists.owners() * n_items + lists.ids
    # as they mostly are
    if (keys[1:] > keys[:-1]).all():
        return keys
    keys.sort()
    return keys[np.append(True, keys[1:] > keys[:-1])]


def _smallest(numbers: NDArray) -> type:
    largest = int(numbers.max(initial=0))
    return np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32
