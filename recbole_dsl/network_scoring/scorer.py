"""Scores of all items for users and for histories, by a model's network."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.utils import ModelType
from torch import Tensor, nn

from recbole_dsl.errors import DSLError, shown
from recbole_dsl.network_scoring.cold_start import average_user, rating_rows
from recbole_dsl.network_scoring.randomness import drawing_from
from recbole_dsl.network_scoring.reading import noting_columns
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.serving.lists import Lists
from recbole_dsl.serving.scorer import Top
from recbole_dsl.serving.selection import top_of
from recbole_dsl.turns import turn

# scores that are computed at once: by a model that gives those of all items, and by one that is asked for pairs
_SCORES, _PAIRS = 2**18, 2**13
# items that are scored to see whether a model that is asked for pairs can score
_TRIED = 2


@dataclass
class NetworkScorer:
    """Scores by the model's ``full_sort_predict``, or its ``predict`` of all pairs; a `Scorer`.

    Nothing is random: a model that draws while it scores does so from the seed that it was trained with, and for
    each user alone, so that a score depends on nothing but the user.

    A model that reads the user beside a history, which may be nobody's, is given the average of the users that it
    knows.

    Attributes:
        model: in evaluation mode, on the device of ``config``.
        dataset: what the model reads of its data, users' and items' features among it.
        histories: of a sequential model what each user has done, RecBole's ids, the padding included; None of
            others.
        draws: whether scores depend on random numbers.
        noted: where the names of the columns go that the model reads of a batch; None if nobody wants to know.
    """

    model: AbstractRecommender
    config: Config
    dataset: Dataset
    histories: Lists | None
    draws: bool
    noted: set[str] | None = None
    why_no_histories = "as it scores trained users only"
    takes_users: bool = True
    _asks_for_pairs: bool = False
    _is_tried: bool = False
    _averages: dict[nn.Embedding, Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def takes_histories(self) -> bool:
        """Whether the model scores by what a user has done: sequential models and autoencoders."""
        return self._is_sequential or isinstance(self.model, AutoEncoderMixin)

    @property
    def batch_size(self) -> int:
        """How many users are scored at once: few if there are many items, or sequences are long."""
        longest = self._longest if self._is_sequential else 0
        return 1 if self.draws else max(1, _SCORES // max(self.dataset.item_num, 32 * longest, longest**2 // 8))

    def prepare(self) -> None:
        """As `Scorer.prepare`: nothing, as a network is made and tried when it is loaded."""

    def try_out(self) -> None:
        """Score a user, and a history where the model takes it: what it lacks shows itself.

        Raises:
            DSLError, ValueError: if it cannot score.
        """
        self._is_tried = True
        try:
            self.scores(np.zeros(1, np.int64))
            if self.takes_histories:
                self.scores_for(Lists.of([[0]]))
        finally:
            self._is_tried = False

    def top(self, users: NDArray[np.int64], k: int, exclude: Lists | None, candidates: NDArray | None) -> Top:
        """As `Scorer.top`."""
        return top_of(self.scores(users), k, exclude, candidates)

    def top_for(self, histories: Lists, k: int, exclude: Lists | None, candidates: NDArray | None) -> Top:
        """As `Scorer.top_for`.

        Raises:
            DSLError: if the model takes no histories.
        """
        return top_of(self.scores_for(histories), k, exclude, candidates)

    def similar(self, items: NDArray[np.int64], k: int, candidates: NDArray | None) -> Top:
        """As `Scorer.similar`, by the rows of the model's ``item_embedding``.

        Raises:
            DSLError: if it has none.
        """
        table = getattr(self.model, "item_embedding", None)
        if not isinstance(table, nn.Embedding) or table.num_embeddings < self.dataset.item_num:
            raise DSLError(f"model={self.config['model']}: must have vectors of items, in item_embedding")
        with torch.no_grad():
            vectors = torch.nn.functional.normalize(table.weight[1 : self.dataset.item_num].float())
            scores = (vectors[torch.from_numpy(items)] @ vectors.T).cpu().numpy()
        return top_of(scores, k, Lists.of(items[:, None]), candidates)

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores (n, items) for ``users`` (n,)."""
        known = np.asarray(users, np.int64) + 1
        if self.histories is None:
            return self._by_batches(len(known), lambda part: self._table_of(known[part]))
        return self._of_histories(self.histories.take(known), known)

    def scores_for(self, histories: Lists) -> NDArray[np.float32]:
        """Scores (n, items) for who has done what is in ``histories``, the latest last.

        Of sequential models, items before the last ``MAX_ITEM_LIST_LENGTH`` do not count.

        Raises:
            DSLError: if the model takes no histories.
        """
        if not self.takes_histories:
            raise DSLError(
                f"model={self.config['model']}: must be a sequential model or an autoencoder to recommend for "
                "histories; this one knows the users that it was trained on only"
            )
        return self._of_histories(Lists(histories.offsets, histories.ids + 1), None)

    @property
    def _longest(self) -> int:
        return self.config["MAX_ITEM_LIST_LENGTH"]

    @property
    def _is_sequential(self) -> bool:
        return self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL

    def _of_histories(self, histories: Lists, known: NDArray | None) -> NDArray[np.float32]:
        users = np.zeros(histories.n, np.int64) if known is None else known

        def table_of(part: slice) -> Interaction:
            table = self._table_of(users[part])
            if self._is_sequential:
                table.update(self._sequences(histories.take(_numbers(part))))
            return table

        def around(part: slice, table: Interaction) -> AbstractContextManager:
            stack = ExitStack()
            if known is None:
                users_of = table[self.dataset.uid_field]
                stack.enter_context(average_user(self.model, users_of, self._averages))
            if not self._is_sequential:
                stack.enter_context(rating_rows(self.model, histories.take(_numbers(part))))
            return stack

        return self._by_batches(histories.n, table_of, around)

    def _by_batches(
        self,
        n: int,
        table_of: Callable[[slice], Interaction],
        around: Callable[[slice, Interaction], AbstractContextManager] = lambda part, table: nullcontext(),
    ) -> NDArray[np.float32]:
        scores = np.empty((n, self.dataset.item_num - 1), np.float32)
        # before the lock, which a training may want that the turn is of
        with (
            turn() if self.draws else nullcontext(),
            self._lock,
            torch.no_grad(),
            refused_in_one_line(f"model={self.config['model']}: cannot score", is_of_a_file=True),
        ):
            for start in range(0, n, self.batch_size):
                part = slice(start, min(start + self.batch_size, n))
                table = table_of(part).to(self.config["device"])
                randomness = drawing_from(self.config["seed"]) if self.draws else nullcontext()
                with randomness, around(part, table):
                    found = self._scores_of(table).view(len(table), self.dataset.item_num)
                scores[part] = found[:, 1:].float().cpu().numpy()
        return scores

    def _scores_of(self, table: Interaction) -> Tensor:
        try:
            return self._by_the_model(table if self.noted is None else noting_columns(table, self.noted))
        except KeyError as error:
            field = error.args[0] if error.args else None
            if not isinstance(field, str) or field not in self.dataset.field2type:
                raise
            raise DSLError(
                f"model={self.config['model']}: reads {shown(field)} of an interaction, which is not known when "
                "recommending"
            ) from error

    def _by_the_model(self, table: Interaction) -> Tensor:
        if not self._asks_for_pairs:
            try:
                return self.model.full_sort_predict(table)
            except NotImplementedError:
                self._asks_for_pairs = True
        items = self.dataset.get_item_feature().to(self.config["device"])
        size = max(1, _PAIRS // len(table))
        n_scored = min(_TRIED, self.dataset.item_num) if self._is_tried else self.dataset.item_num
        parts = []
        for start in range(0, n_scored, size):
            some = items[start : min(start + size, n_scored)]
            pairs = table.repeat_interleave(len(some))
            pairs.update(some.repeat(len(table)))
            parts.append(self.model.predict(pairs).view(len(table), len(some)))
        return nn.functional.pad(torch.cat(parts, 1), (0, self.dataset.item_num - n_scored))

    def _table_of(self, users: NDArray[np.int64]) -> Interaction:
        return self.dataset.join(Interaction({self.dataset.uid_field: torch.from_numpy(users)}))

    def _sequences(self, histories: Lists) -> Interaction:
        longest = self._longest
        sequences = np.zeros((histories.n, longest), np.int64)
        # who has done nothing gets a sequence of padding, the first of which is read; a model that can make
        # nothing of it, and says NaN, recommends nothing
        lengths = np.ones(histories.n, np.int64)
        for row in range(histories.n):
            latest = histories.ids[histories.offsets[row] : histories.offsets[row + 1]][-longest:]
            sequences[row, : len(latest)] = latest
            lengths[row] = max(1, len(latest))
        name = self.dataset.iid_field + self.config["LIST_SUFFIX"]
        return Interaction(
            {
                name: torch.from_numpy(sequences),
                self.config["ITEM_LIST_LENGTH_FIELD"]: torch.from_numpy(lengths),
                # for losses that DIEN, SASRecCPR and GRU4RecCPR compute beside their scores
                self.config["NEG_PREFIX"] + name: torch.from_numpy(sequences),
                self.dataset.iid_field: torch.zeros(histories.n, dtype=torch.int64),
            }
        )


def _numbers(part: slice) -> NDArray[np.int64]:
    return np.arange(part.start, part.stop)
