"""Recommending from an artifact: tokens in, tokens out."""

import importlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, refusal, shown
from recbole_dsl.serving.artifact import Artifact, read_artifact
from recbole_dsl.serving.lists import Lists, offsets_of
from recbole_dsl.serving.scorer import Scorer, Top
from recbole_dsl.serving.seen import LEVELS, Seen
from recbole_dsl.serving.selection import top_of
from recbole_dsl.serving.tables import Table
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.vectors import Vectors, as_numpy, as_scipy, as_torch

# the module that scores each kind of artifact
KINDS = {"product": "recbole_dsl.serving.product", "network": "recbole_dsl.network_scoring.artifact"}
UNKNOWN = ("error", "popular")
# tokens that an error names
_NAMED = 5
# scores from which on a job of many batches is prepared for
_WORTH_PREPARING = 2**25

# (n, k) tokens, or (k,) for one user, and their scores
Recommendations = tuple[NDArray[np.object_], NDArray[np.float32]]
# the same after the names (n,) of those that they are for
Batch = tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.float32]]


class Recommender:
    """Recommends with the model in an artifact; make it with `load`.

    Attributes:
        header: what the artifact says of itself: model, dataset, options.
        users: the tokens of the users that were trained on, by id.
        items: the tokens of the items, by id.
        seen: what the users have had.
        scorer: what finds the items of the highest scores.
    """

    def __init__(self, header: dict[str, Any], users: Tokens, items: Tokens, seen: Seen, scorer: Scorer):
        self.header, self.users, self.items, self.seen, self.scorer = header, users, items, seen, scorer
        self._lock, self._is_prepared = threading.Lock(), False

    @classmethod
    def load(cls, path: str | os.PathLike, model_class: type | None = None) -> "Recommender":
        """Read an artifact that `export` made. All of it is checked; nothing in it is run.

        Args:
            model_class: the model's class, if it is served by its network and not one of RecBole's.

        Raises:
            DSLError: if it is missing, damaged, not ours or of a later version.
        """
        return cls.of(read_artifact(path), model_class)

    @classmethod
    def of(cls, artifact: Artifact, model_class: type | None = None) -> "Recommender":
        """`load`, for an artifact that has been read.

        Raises:
            DSLError: if what it holds makes no sense.
        """
        header = artifact.header
        if header["kind"] not in KINDS:
            artifact.refuse(f"is of the kind {shown(header['kind'])}, must be one of {', '.join(KINDS)}")
        users = Tokens.read(artifact, "users", header["n_users"])
        items = Tokens.read(artifact, "items", header["n_items"])
        of_kind = importlib.import_module(KINDS[header["kind"]])
        scorer = of_kind.load(artifact) if header["kind"] == "product" else of_kind.load(artifact, model_class)
        return cls(header, users, items, Seen.read(artifact), scorer)

    def prepare(self) -> None:
        """Do now what the first requests would wait for, so that they are as fast as any other.

        It builds the lists that items are searched by, compiles the search or loads what was compiled (seconds the
        first time on a machine, with the extra ``serve``), and scores a user, a history and an item. Without it no
        request waits for any of that: items are then searched by NumPy alone, which takes longer for many items.
        It may be called more than once, and while requests are answered.
        """
        with self._lock:
            if self._is_prepared:
                return
            self.scorer.prepare()
            # what is left is made by asking, also for who is not known
            item = self.items[0]
            self._top_of_users(np.array([-1]), self.seen.level, 1, None)
            if self.scorer.takes_users:
                self.recommend([self.users[0]], 1)
            if self.scorer.takes_histories:
                self.recommend_for([[item]], 1)
            with suppress(DSLError):
                self.similar_items([item], 1)
            self._is_prepared = True

    def recommend(
        self,
        users: str | Iterable[str],
        k: int = 10,
        *,
        filter_seen: str | None = None,
        items: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: str = "error",
    ) -> Recommendations:
        """The ``k`` best items for users that were trained on.

        Args:
            users: their tokens, or one token.
            k: at least 1; all that there are if there are fewer.
            filter_seen: "all" leaves out what a user has in the data, "trained" what was trained on, "none"
                nothing; the most that the artifact knows if None.
            items: the tokens of the items that there are to choose from; None for all.
            exclude: tokens of items to leave out.
            unknown: "error", or "popular" to give users that are not known the items that most users had, with
                how many these were as scores.

        Returns:
            (items, scores): tokens (n, k) and float32 (n, k), the best first. Where fewer than ``k`` items remain
            for a user, the rest is None and -inf. For one token both are (k,), or shorter.

        Raises:
            DSLError: naming what is wrong with an argument.
        """
        is_one = _is_token(users)
        tokens = _tokens("users", _listed(users))
        ids = self.users.ids(tokens)
        _choice("unknown", unknown, UNKNOWN)
        if unknown == "error" and (ids < 0).any():
            raise _unknown("users", tokens, ids)
        found = self._top_of_users(ids, *self._choices(k, filter_seen, items, exclude))
        return self._answer(found, is_one)

    def recommend_for(
        self,
        histories: Iterable[Sequence[str]],
        k: int = 10,
        *,
        filter_seen: bool = True,
        items: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        unknown: str = "error",
    ) -> Recommendations:
        """The ``k`` best items for users of whom only the items that they had are known.

        Args:
            histories: for each the tokens of its items, the oldest first.
            filter_seen: leave out the items of the history itself.
            unknown: "error", or "popular" to pass over items that are not known, and to give the popular ones
                where no item is left.

        The other arguments, what is returned and what is raised are as in `recommend`.
        """
        if not self.scorer.takes_histories:
            raise DSLError(f"histories: {self.header['model']} takes none, {self.scorer.why_no_histories}")
        _choice("unknown", unknown, UNKNOWN)
        lists = self._histories(histories, skip_unknown=unknown == "popular")
        _, k, allowed = self._choices(k, "none", items, exclude)
        return self._answer(self._top_of_histories(lists, bool(filter_seen), k, allowed), False)

    def similar_items(
        self,
        items: str | Iterable[str],
        k: int = 10,
        *,
        exclude: Iterable[str] | None = None,
    ) -> Recommendations:
        """The ``k`` items most like each of ``items``, by the cosine of their vectors, themselves left out.

        Raises:
            DSLError: as `recommend`, or if the model has no vectors of items.
        """
        is_one = _is_token(items)
        ids = self._item_ids("items", _listed(items))
        _, k, allowed = self._choices(k, "none", None, exclude)

        def batch(start: int, stop: int) -> Top:
            return self.scorer.similar(ids[start:stop], k, allowed)

        return self._answer(_in_batches(len(ids), self.scorer.batch_size, k, batch), is_one)

    def to_numpy(self) -> Vectors:
        """The vectors of users and items, dense, with their tokens.

        Raises:
            DSLError: if the model is served by its network, and has none.
        """
        return self._vectors(as_numpy)

    def to_scipy(self) -> Vectors:
        """The same as ``scipy.sparse.csr_array``."""
        return self._vectors(as_scipy)

    def to_torch(self) -> Vectors:
        """The same as PyTorch's tensors, in sparse CSR layout where entries are missing."""
        return self._vectors(as_torch)

    def batches(self, users: Iterable[str] | None = None, k: int = 10, **options: Any) -> Iterator[Batch]:
        """`recommend` for many users, a batch at a time: their tokens (n,), items (n, k) and scores (n, k).

        Args:
            users: None for all that were trained on.
            options: those of `recommend`.
        """
        size = self.scorer.batch_size
        names = self.users.all if users is None else np.array(_tokens("users", users), object)
        # what is wrong with one of them is said before there is any answer
        unknown = options.get("unknown", "error")
        if users is not None and unknown == "error":
            ids = self.users.ids(names.tolist())
            if (ids < 0).any():
                raise _unknown("users", names.tolist(), ids)
        self._prepare_for(len(names))
        for start in range(0, len(names), size):
            part = names[start : start + size]
            yield (part, *self.recommend(part.tolist(), k, **options))

    def batches_for(
        self, names: Sequence[str], histories: Sequence[Sequence[str]], k: int = 10, **options: Any
    ) -> Iterator[Batch]:
        """`recommend_for`, a batch at a time, for users called ``names`` (n,)."""
        if options.get("unknown", "error") == "error":
            # what is wrong with one of them is said before there is any answer
            self._histories(histories, skip_unknown=False)
        self._prepare_for(len(names))
        for start in range(0, len(names), self.scorer.batch_size):
            part = slice(start, start + self.scorer.batch_size)
            yield (np.array(names[part], object), *self.recommend_for(histories[part], k, **options))

    def batches_of_similar(self, items: Sequence[str], k: int = 10, **options: Any) -> Iterator[Batch]:
        """`similar_items`, a batch at a time."""
        self._item_ids("items", items)
        self._prepare_for(len(items))
        for start in range(0, len(items), self.scorer.batch_size):
            part = list(items[start : start + self.scorer.batch_size])
            yield (np.array(part, object), *self.similar_items(part, k, **options))

    def _prepare_for(self, n: int) -> None:
        """`prepare` where that takes less time than it saves for ``n`` users."""
        if n * len(self.items) >= _WORTH_PREPARING:
            self.prepare()

    def _vectors(self, convert: Callable[[Table], Any]) -> Vectors:
        if self.header["kind"] != "product":
            raise DSLError(f"{self.header['model']} is served by its network, and has no vectors to give")
        # which are what a product has
        tables: Any = self.scorer
        return Vectors(convert(tables.users), convert(tables.items), self.users.all, self.items.all)

    def _top_of_users(self, ids: NDArray[np.int64], level: str, k: int, allowed: NDArray[np.bool_] | None) -> Top:
        known = np.flatnonzero(ids >= 0)

        def batch(start: int, stop: int) -> Top:
            users = ids[known[start:stop]]
            exclude = None if level == "none" else self.seen.lists(users, level)
            return self.scorer.top(users, k, exclude, allowed)

        if len(known) and not self.scorer.takes_users:
            raise DSLError(f"users: {self.header['model']} scores none by name; give it histories")
        found = _in_batches(len(known), self.scorer.batch_size, k, batch)
        return found if len(known) == len(ids) else self._with_popular(found, known, len(ids), k, allowed)

    def _top_of_histories(
        self, histories: Lists, filter_seen: bool, k: int, allowed: NDArray[np.bool_] | None
    ) -> Top:
        known = np.flatnonzero(np.diff(histories.offsets))

        def batch(start: int, stop: int) -> Top:
            lists = histories.take(known[start:stop])
            exclude = Lists.of(np.unique(lists.ids[a:b]) for a, b in zip(lists.offsets, lists.offsets[1:]))
            return self.scorer.top_for(lists, k, exclude if filter_seen else None, allowed)

        found = _in_batches(len(known), self.scorer.batch_size, k, batch)
        return found if len(known) == histories.n else self._with_popular(found, known, histories.n, k, allowed)

    def _with_popular(
        self, found: Top, known: NDArray[np.int64], n: int, k: int, allowed: NDArray[np.bool_] | None
    ) -> Top:
        """``found`` for the users at ``known`` of ``n``, and the popular items for the others."""
        ids, scores = top_of(self.seen.popularity[None].astype(np.float32), k, None, allowed)
        ids, scores = np.repeat(ids, n, 0), np.repeat(scores, n, 0)
        ids[known], scores[known] = found
        return ids, scores

    def _choices(
        self, k: int, filter_seen: str | None, items: Iterable[str] | None, exclude: Iterable[str] | None
    ) -> tuple[str, int, NDArray[np.bool_] | None]:
        """The level of seen items to leave out, how many items to find, and which there are."""
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise refusal("k", k, "an integer >= 1")
        level = self.seen.level if filter_seen is None else filter_seen
        _choice("filter_seen", level, LEVELS)
        if LEVELS.index(level) < LEVELS.index(self.seen.level):
            raise DSLError(f"filter_seen={level}: must be {self.seen.level}, as the artifact was exported so")
        allowed = None
        if items is not None:
            allowed = np.zeros(len(self.items), bool)
            allowed[self._item_ids("items", items)] = True
            if not allowed.any():
                raise DSLError("items: must name at least one item")
        if exclude is not None:
            allowed = np.ones(len(self.items), bool) if allowed is None else allowed
            allowed[self._item_ids("exclude", exclude)] = False
        return level, min(int(k), len(self.items)), allowed

    def _item_ids(self, name: str, tokens: str | Iterable[str]) -> NDArray[np.int64]:
        given = _tokens(name, _listed(tokens))
        ids = self.items.ids(given)
        if (ids < 0).any():
            raise _unknown(name, given, ids)
        return ids

    def _histories(self, histories: Iterable[Sequence[str]], skip_unknown: bool) -> Lists:
        if isinstance(histories, str) or not isinstance(histories, Iterable):
            raise refusal("histories", histories, "a list of lists of tokens")
        given = []
        for number, history in enumerate(histories, 1):
            if _is_token(history):
                raise refusal(f"histories, number {number}", history, "a list of tokens")
            given.append(_tokens(f"histories, number {number}", history))
        offsets = offsets_of(np.array([len(history) for history in given], np.int64))
        flat = [token for history in given for token in history]
        ids = self.items.ids(flat)
        if skip_unknown:
            kept = offsets_of((ids >= 0).astype(np.int64))
            return Lists(kept[offsets], ids[ids >= 0])
        if (ids < 0).any():
            raise _unknown("histories", flat, ids)
        empty = np.flatnonzero(np.diff(offsets) == 0)
        if len(empty):
            raise DSLError(f"histories, number {empty[0] + 1}: must have an item, or say unknown=popular")
        return Lists(offsets, ids)

    def _answer(self, found: Top, is_one: bool) -> Recommendations:
        ids, scores = found
        tokens = self.items.of_ids(ids)
        if not is_one:
            return tokens, scores
        n_left = int((ids[0] >= 0).sum())
        return tokens[0, :n_left], scores[0, :n_left]


def _in_batches(n: int, size: int, k: int, top: Callable[[int, int], Top]) -> Top:
    parts = [top(start, min(start + size, n)) for start in range(0, n, size)]
    if not parts:
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([scores for _, scores in parts])


def _listed(tokens: str | Iterable[str]) -> Iterable[str]:
    """``tokens``, or one token as a list of it."""
    return [str(tokens)] if _is_token(tokens) else tokens


def _is_token(value: Any) -> bool:
    # numbers too, which tokens often are
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, bool)


def _tokens(name: str, values: Any) -> list[str]:
    if isinstance(values, (dict, bytes)) or not isinstance(values, Iterable):
        raise refusal(name, values, "tokens")
    values = list(values)
    for value in values:
        if not _is_token(value):
            raise refusal(name, value, "tokens, which are texts")
    return [str(value) for value in values]


def _choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise refusal(name, value, f"one of {', '.join(allowed)}")


def _unknown(name: str, tokens: Sequence[str], ids: NDArray[np.int64]) -> DSLError:
    """The error for those of ``tokens`` whose id is -1."""
    distinct = list(dict.fromkeys(tokens[place] for place in np.flatnonzero(ids < 0).tolist()))
    what = "users" if name == "users" else "items"
    named = ", ".join(shown(token) for token in distinct[:_NAMED])
    more = f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else ""
    return DSLError(f"{name}={named}{more}: must be {what} that the model was trained on")
