"""Scoring all items for users and for histories by a model's network."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.utils import ModelType
from torch import Tensor, nn

from recbole_dsl.errors import DSLError, shown
from recbole_dsl.network_scoring.cold_start import average_user, rating_rows
from recbole_dsl.network_scoring.randomness import drawing_from
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.serving.csr import CSR, Floats, Ids, Mask
from recbole_dsl.serving.top_k_numpy import Found, top_of
from recbole_dsl.turns import turn

# scores that are computed at once, by a model that scores all items and by one that scores pairs
_SCORES, _PAIRS = 2**18, 2**13
# items that are scored to see whether a model that scores pairs can do so
_TRIED = 2


@dataclass
class NetworkScorer:
    """Scores by the model's ``full_sort_predict``, or its ``predict`` of all pairs; a `Scorer`.

    Nothing is random: a model that draws random numbers while it scores draws them from its training's seed, and
    anew for each user, so that a score depends on the user alone.

    A model that reads the user beside a history is given the average of the users that it knows.

    Attributes:
        model: in evaluation mode, on the device of ``config``.
        dataset: what the model reads of its data, with users' and items' features.
        sequences: for a sequential model the latest items of each user, the padding included, RecBole's ids; None
            for others.
        draws: whether scores depend on random numbers.
        trace: what a batch goes through before the model reads it.
    """

    model: AbstractRecommender
    config: Config
    dataset: Dataset
    sequences: CSR | None
    draws: bool
    trace: Callable[[Interaction], Interaction] = lambda batch: batch
    why_no_histories = "as it scores trained users only"
    takes_items = False
    why_no_items = "as its score is no product of two vectors"
    takes_users: bool = True
    _asks_for_pairs: bool = False
    _is_trial: bool = False
    _averages: dict[nn.Embedding, Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def takes_histories(self) -> bool:
        """Whether the model scores by a history, as sequential models and autoencoders do."""
        return self._is_sequential or isinstance(self.model, AutoEncoderMixin)

    @property
    def batch_size(self) -> int:
        """How many users are scored at once: few if there are many items or sequences are long."""
        longest = self._longest if self._is_sequential else 0
        return 1 if self.draws else max(1, _SCORES // max(self.dataset.item_num, 32 * longest, longest**2 // 8))

    def prepare(self) -> None:
        """As `Scorer.prepare`; nothing to do, as a network is restored and tried when it is loaded."""

    def try_out(self) -> None:
        """Score a user, and a history where the model takes it, so that anything missing raises an error.

        Raises:
            DSLError, ValueError: if it cannot score.
        """
        self._is_trial = True
        try:
            self.scores(np.zeros(1, np.int64))
            if self.takes_histories:
                self.scores_for(CSR.of_lists([[0]]))
        finally:
            self._is_trial = False

    def top(self, users: Ids, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        return top_of(self.scores(users), k, exclude, candidates)

    def top_for(self, histories: CSR, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        """As `Scorer.top_for`.

        Raises:
            DSLError: if the model takes no histories.
        """
        return top_of(self.scores_for(histories), k, exclude, candidates)

    def similar(self, items: Ids, k: int, candidates: Mask | None) -> Found:
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
        return top_of(scores, k, CSR.of_lists(items[:, None]), candidates)

    def scores(self, users: Ids) -> Floats:
        """(n, n_items) the scores of ``users`` (n,)."""
        known = np.asarray(users, np.int64) + 1
        if self.sequences is None:
            return self._by_batches(len(known), lambda part: self._table_of(known[part]))
        return self._of_histories(self.sequences.take(known), known)

    def scores_for(self, histories: CSR) -> Floats:
        """(n, n_items) the scores for users with ``histories``, oldest item first.

        Sequential models read the last ``MAX_ITEM_LIST_LENGTH`` items.

        Raises:
            DSLError: if the model takes no histories.
        """
        if not self.takes_histories:
            raise DSLError(
                f"model={self.config['model']}: must be a sequential model or an autoencoder to recommend for "
                "histories; this one knows the users that it was trained on only"
            )
        return self._of_histories(CSR(histories.offsets, histories.columns + 1), None)

    @property
    def _longest(self) -> int:
        return self.config["MAX_ITEM_LIST_LENGTH"]

    @property
    def _is_sequential(self) -> bool:
        return self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL

    def _of_histories(self, histories: CSR, known: Ids | None) -> Floats:
        users = np.zeros(histories.n_rows, np.int64) if known is None else known

        def table_of(part: slice) -> Interaction:
            table = self._table_of(users[part])
            if self._is_sequential:
                table.update(self._sequences(histories.between(part.start, part.stop)))
            return table

        def around(part: slice, table: Interaction) -> AbstractContextManager:
            stack = ExitStack()
            if known is None:
                users_of = table[self.dataset.uid_field]
                stack.enter_context(average_user(self.model, users_of, self._averages))
            if not self._is_sequential:
                stack.enter_context(rating_rows(self.model, histories.between(part.start, part.stop)))
            return stack

        return self._by_batches(histories.n_rows, table_of, around)

    def _by_batches(
        self,
        n: int,
        table_of: Callable[[slice], Interaction],
        around: Callable[[slice, Interaction], AbstractContextManager] = lambda part, table: nullcontext(),
    ) -> Floats:
        scores = np.empty((n, self.dataset.item_num - 1), np.float32)
        # the turn before the lock, as a training that has the turn may want the lock
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
            return self._by_the_model(self.trace(table))
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
        n_scored = min(_TRIED, self.dataset.item_num) if self._is_trial else self.dataset.item_num
        parts = []
        for start in range(0, n_scored, size):
            some = items[start : min(start + size, n_scored)]
            pairs = table.repeat_interleave(len(some))
            pairs.update(some.repeat(len(table)))
            parts.append(self.model.predict(pairs).view(len(table), len(some)))
        return nn.functional.pad(torch.cat(parts, 1), (0, self.dataset.item_num - n_scored))

    def _table_of(self, users: Ids) -> Interaction:
        return self.dataset.join(Interaction({self.dataset.uid_field: torch.from_numpy(users)}))

    def _sequences(self, histories: CSR) -> Interaction:
        longest = self._longest
        sequences = np.zeros((histories.n_rows, longest), np.int64)
        # an empty history is a sequence of padding, of which the first is read; a model that scores NaN for it
        # recommends nothing
        lengths = np.ones(histories.n_rows, np.int64)
        for row in range(histories.n_rows):
            latest = histories.columns[histories.offsets[row] : histories.offsets[row + 1]][-longest:]
            sequences[row, : len(latest)] = latest
            lengths[row] = max(1, len(latest))
        name = self.dataset.iid_field + self.config["LIST_SUFFIX"]
        return Interaction(
            {
                name: torch.from_numpy(sequences),
                self.config["ITEM_LIST_LENGTH_FIELD"]: torch.from_numpy(lengths),
                # DIEN, SASRecCPR and GRU4RecCPR compute losses beside their scores
                self.config["NEG_PREFIX"] + name: torch.from_numpy(sequences),
                self.dataset.iid_field: torch.zeros(histories.n_rows, dtype=torch.int64),
            }
        )
