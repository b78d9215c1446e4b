"""Recommending from an artifact: tokens in, tokens out."""

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.errors import DSLError, first_of, refusal, shown
from recbole_dsl.serving.artifact import Artifact, read_artifact
from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask, offsets_of
from recbole_dsl.serving.new_items import with_new
from recbole_dsl.serving.scorer import Scorer, load_scorer
from recbole_dsl.serving.tokens import Tokens, is_token, tokens_in
from recbole_dsl.serving.top_k_numpy import Found, top_of
from recbole_dsl.serving.user_histories import LEVELS, UserHistories
from recbole_dsl.serving.vectors import Vectors, as_torch

UNKNOWN = ("error", "popular")
ERRORS = ("raise", "ignore")
# scores from which on a job of many batches is prepared for
_WORTH_PREPARING = 2**25

# (n, k) tokens, or (k,) for one user, and their scores
Recommendations = tuple[NDArray[np.object_], Floats]
# the same, after the names (n,) of those that they are for
Batch = tuple[NDArray[np.object_], NDArray[np.object_], Floats]


class Recommender:
    """Recommends with the model in an artifact; make it with `load`.

    Attributes:
        header: what the artifact says of itself: model, dataset, options.
        users: the tokens of the users that were trained on, by id.
        items: the tokens of the items, by id.
        user_histories: the items that the users have interacted with.
        scorer: finds the items with the highest scores.
    """

    def __init__(
        self, header: dict[str, Any], users: Tokens, items: Tokens, user_histories: UserHistories, scorer: Scorer
    ):
        self.header, self.users, self.items, self.scorer = header, users, items, scorer
        self.user_histories = user_histories
        self._lock, self._is_prepared = threading.Lock(), False

    @property
    def seen(self) -> UserHistories:
        """The earlier name of ``user_histories``."""
        warnings.warn("Recommender.seen is now Recommender.user_histories", DeprecationWarning, stacklevel=2)
        return self.user_histories

    @classmethod
    def load(cls, path: str | os.PathLike, model_class: type | None = None) -> "Recommender":
        """The recommender of an artifact that `export` wrote. All of it is checked; nothing in it is run.

        Args:
            model_class: the model's class, if it is served by its network and not one of RecBole's.

        Raises:
            DSLError: if it is missing, damaged, not ours or of a later version.
        """
        return cls.of(read_artifact(path), model_class)

    @classmethod
    def of(cls, artifact: Artifact, model_class: type | None = None) -> "Recommender":
        """The recommender of an artifact that has been read; otherwise as `load`.

        Raises:
            DSLError: if its content makes no sense.
        """
        header = artifact.header
        users, items = (Tokens.read(artifact, side, header[f"n_{side}"]) for side in ("users", "items"))
        return cls(header, users, items, UserHistories.read(artifact), load_scorer(artifact, model_class))

    def prepare(self) -> None:
        """Do now what the first requests would wait for, so that they are as fast as any other.

        It builds the index of the items, compiles the search or loads what was compiled (seconds the first time on
        a machine, with the extra ``serve``), and scores a user, a history and an item. Without it no request waits
        for any of that: NumPy alone searches the items then, which takes longer if they are many. It may be called
        again, and while requests are answered.
        """
        with self._lock:
            if self._is_prepared:
                return
            self.scorer.prepare()
            # the rest is built by asking, also for unknown users
            item = self.items[0]
            self._top_of_users(np.array([-1]), self.user_histories.level, 1, None)
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
            k: at least 1; if there are fewer items, all of them are returned.
            filter_seen: "all" leaves out a user's items in all of the data, "trained" those in the training data,
                "none" nothing; the most that the artifact knows if None.
            items: the tokens of the items to choose from; None for all.
            exclude: tokens of items to leave out.
            unknown: "error", or "popular" to give unknown users the items that most users have, with how many
                these are as scores.

        Returns:
            (items, scores): tokens (n, k) and float32 (n, k), the best first. Where fewer than ``k`` items remain
            for a user, the rest is None and -inf. For one token both are (k,), or shorter.

        Raises:
            DSLError: naming what is wrong with an argument.
        """
        _check_choice("unknown", unknown, UNKNOWN)
        ids = self._ids("users", users, is_any_allowed=unknown != "error")
        found = self._top_of_users(ids, *self._choices(k, filter_seen, items, exclude))
        return self._answer(found, is_token(users))

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
        """The ``k`` best items for users of whom only the history is known.

        Args:
            histories: for each user the tokens of the items, oldest first.
            filter_seen: leave out the items of the history itself.
            unknown: "error", or "popular" to pass over unknown items, and to give the popular ones where no item
                is left.

        The other arguments, what is returned and what is raised are as in `recommend`.
        """
        if not self.scorer.takes_histories:
            raise DSLError(f"histories: {self.header['model']} takes none, {self.scorer.why_no_histories}")
        _check_choice("unknown", unknown, UNKNOWN)
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
        """The ``k`` items most similar to each of ``items``, by the cosine of their vectors, themselves left out.

        Raises:
            DSLError: as `recommend`, or if the model has no vectors of items.
        """
        ids = self._ids("items", items)
        _, k, allowed = self._choices(k, "none", None, exclude)
        found = self._in_batches(len(ids), k, lambda part: self.scorer.similar(ids[part], k, allowed))
        return self._answer(found, is_token(items))

    def with_items(self, users_of: Mapping[str, Iterable[str]], *, errors: str = "raise") -> "Recommender":
        """A recommender that knows items which came after training, too; this one stays as it is.

        It recommends them, takes them in histories and finds items alike. They are folded in by least squares on
        the users' vectors, on the scale of the trained items. A user who had one is not recommended it again.

        Args:
            users_of: the token of each item, and those of the users who had it.
            errors: "raise", or "ignore" to pass over unknown users, items that are known, and items that no known
                user had.

        Raises:
            DSLError: naming what is wrong, or if the model has no vectors, or the artifact no users' items.
        """
        header = self.header
        if not self.scorer.takes_items:
            raise DSLError(f"new items: {header['model']} takes none, {self.scorer.why_no_items}")
        if self.user_histories.level == "none":
            raise DSLError("new items: an artifact of --seen=none takes none, as it does not say who had what")
        _check_choice("errors", errors, ERRORS)
        tokens, lists = self._users_of(users_of, errors == "ignore")
        if not tokens:
            return self
        items = Tokens.of([*self.items.all.tolist(), *tokens], "new items")
        trained = self.user_histories.lists(np.arange(len(self.users)), "trained")
        scorer = self.scorer.with_items(lists, trained)
        histories = with_new(self.user_histories, trained, lists)
        return Recommender({**header, "n_items": len(items)}, self.users, items, histories, scorer)

    def to_numpy(self) -> Vectors:
        """The vectors of users and items, dense, with their tokens.

        Raises:
            DSLError: if the model is served by its network, and has none.
        """
        return self._vectors(CSR.dense)

    def to_scipy(self) -> Vectors:
        """The same as ``scipy.sparse.csr_array``."""
        return self._vectors(CSR.to_scipy)

    def to_torch(self) -> Vectors:
        """The same as PyTorch's tensors, in sparse CSR layout where entries are missing."""
        return self._vectors(as_torch)

    def batches(self, users: Iterable[str] | None = None, k: int = 10, **options: Any) -> Iterator[Batch]:
        """`recommend` for many users, a batch at a time: their tokens (n,), items (n, k) and scores (n, k).

        Args:
            users: None for all that were trained on.
            options: those of `recommend`.
        """
        names = self.users.all if users is None else np.array(tokens_in("users", users), object)
        # an unknown user is refused before there is any answer
        if users is not None and options.get("unknown", "error") == "error":
            self._ids("users", names.tolist())
        return self._batches(names, lambda part: self.recommend(names[part].tolist(), k, **options))

    def batches_for(
        self, names: Sequence[str], histories: Sequence[Sequence[str]], k: int = 10, **options: Any
    ) -> Iterator[Batch]:
        """`recommend_for`, a batch at a time, for users called ``names`` (n,)."""
        if options.get("unknown", "error") == "error":
            self._histories(histories, skip_unknown=False)
        return self._batches(names, lambda part: self.recommend_for(histories[part], k, **options))

    def batches_of_similar(self, items: Sequence[str], k: int = 10, **options: Any) -> Iterator[Batch]:
        """`similar_items`, a batch at a time."""
        self._ids("items", items)
        return self._batches(items, lambda part: self.similar_items(list(items[part]), k, **options))

    def _batches(self, names: Any, answer: Callable[[slice], Recommendations]) -> Iterator[Batch]:
        # where preparing takes less time than it saves
        if len(names) * len(self.items) >= _WORTH_PREPARING:
            self.prepare()
        size = self.scorer.batch_size
        for start in range(0, len(names), size):
            part = slice(start, start + size)
            yield (np.array(names[part], object), *answer(part))

    def _vectors(self, convert: Callable[[CSR], Any]) -> Vectors:
        if self.header["kind"] != "product":
            raise DSLError(f"{self.header['model']} is served by its network, and has no vectors to give")
        # a product has tables
        scorer: Any = self.scorer
        users, items = (convert(table.rows(0, table.n_rows)) for table in (scorer.users, scorer.items))
        return Vectors(users, items, self.users.all, self.items.all)

    def _top_of_users(self, ids: Ids, level: str, k: int, allowed: Mask | None) -> Found:
        known = np.flatnonzero(ids >= 0)

        def batch(part: slice) -> Found:
            users = ids[known[part]]
            exclude = None if level == "none" else self.user_histories.lists(users, level)
            return self.scorer.top(users, k, exclude, allowed)

        if len(known) and not self.scorer.takes_users:
            raise DSLError(f"users: {self.header['model']} scores none by name; give it histories")
        return self._with_popular(self._in_batches(len(known), k, batch), known, len(ids), k, allowed)

    def _top_of_histories(self, histories: CSR, filter_seen: bool, k: int, allowed: Mask | None) -> Found:
        known = np.flatnonzero(histories.lengths)

        def batch(part: slice) -> Found:
            lists = histories.take(known[part])
            exclude = CSR.of_lists(np.unique(lists.columns[a:b]) for a, b in zip(lists.offsets, lists.offsets[1:]))
            return self.scorer.top_for(lists, k, exclude if filter_seen else None, allowed)

        return self._with_popular(self._in_batches(len(known), k, batch), known, histories.n_rows, k, allowed)

    def _in_batches(self, n: int, k: int, top: Callable[[slice], Found]) -> Found:
        ids, scores = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
        size = self.scorer.batch_size
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            ids[part], scores[part] = top(part)
        return ids, scores

    def _with_popular(self, found: Found, known: Ids, n: int, k: int, allowed: Mask | None) -> Found:
        """``found`` for the users at ``known`` of ``n``, and the popular items for the others."""
        if len(known) == n:
            return found
        ids, scores = top_of(self.user_histories.popularity[None].astype(np.float32), k, None, allowed)
        ids, scores = np.repeat(ids, n, 0), np.repeat(scores, n, 0)
        ids[known], scores[known] = found
        return ids, scores

    def _choices(
        self, k: int, filter_seen: str | None, items: Iterable[str] | None, exclude: Iterable[str] | None
    ) -> tuple[str, int, Mask | None]:
        """The level of the user histories to leave out, how many items to find, and which items there are."""
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise refusal("k", k, "an integer >= 1")
        known = self.user_histories.level
        level = known if filter_seen is None else filter_seen
        _check_choice("filter_seen", level, LEVELS)
        if LEVELS.index(level) < LEVELS.index(known):
            raise DSLError(f"filter_seen={level}: must be {known}, as the artifact was exported so")
        allowed = None
        if items is not None:
            allowed = np.zeros(len(self.items), bool)
            allowed[self._ids("items", items)] = True
            if not allowed.any():
                raise DSLError("items: must name at least one item")
        if exclude is not None:
            allowed = np.ones(len(self.items), bool) if allowed is None else allowed
            allowed[self._ids("exclude", exclude)] = False
        return level, min(int(k), len(self.items)), allowed

    def _ids(self, name: str, tokens: str | Iterable[str], is_any_allowed: bool = False) -> Ids:
        """(n,) the ids of ``tokens``, given for ``name``; -1 for unknown ones, if any are allowed."""
        given = tokens_in(name, [str(tokens)] if is_token(tokens) else tokens)
        what = "users" if name.startswith("users") else "items"
        ids = getattr(self, what).ids(given)
        if is_any_allowed or not (ids < 0).any():
            return ids
        distinct = list(dict.fromkeys(given[place] for place in np.flatnonzero(ids < 0).tolist()))
        raise DSLError(f"{name}={first_of(distinct)}: must be {what} that the model was trained on")

    def _users_of(self, users_of: Mapping[str, Iterable[str]], skip: bool) -> tuple[list[str], CSR]:
        """The new items, and the users of each, ascending and distinct."""
        if not isinstance(users_of, Mapping):
            raise refusal("new items", users_of, "a mapping from the token of an item to those of its users")
        tokens = tokens_in("new items", list(users_of))
        if len(set(tokens)) < len(tokens):
            raise DSLError("new items: must be given once each, also where one is a number and one a text")
        found, lists = [], []
        for token, is_known, users in zip(tokens, self.items.ids(tokens) >= 0, users_of.values()):
            if is_known and not skip:
                raise refusal("new items", token, "an item that the model was not trained on")
            if is_known:
                continue
            name = f"users of {shown(token)}"
            ids = np.unique(self._ids(name, users, is_any_allowed=skip))
            ids = ids[ids >= 0]
            if len(ids):
                found.append(token)
                lists.append(ids)
            elif not skip:
                raise DSLError(f"{name}: must be at least one user")
        return found, CSR.of_lists(lists)

    def _histories(self, histories: Iterable[Sequence[str]], skip_unknown: bool) -> CSR:
        if isinstance(histories, str) or not isinstance(histories, Iterable):
            raise refusal("histories", histories, "a list of lists of tokens")
        given = []
        for number, history in enumerate(histories, 1):
            if is_token(history):
                raise refusal(f"histories, number {number}", history, "a list of tokens")
            given.append(tokens_in(f"histories, number {number}", history))
        offsets = offsets_of([len(history) for history in given])
        ids = self._ids("histories", [token for history in given for token in history], skip_unknown)
        empty = np.flatnonzero(np.diff(offsets) == 0)
        if len(empty) and not skip_unknown:
            raise DSLError(f"histories, number {empty[0] + 1}: must have an item, or say unknown=popular")
        return CSR(offsets_of(ids >= 0)[offsets], ids[ids >= 0])

    def _answer(self, found: Found, is_one: bool) -> Recommendations:
        ids, scores = found
        tokens = self.items.of_ids(ids)
        if not is_one:
            return tokens, scores
        n_left = int((ids[0] >= 0).sum())
        return tokens[0, :n_left], scores[0, :n_left]


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise refusal(name, value, f"one of {', '.join(allowed)}")
