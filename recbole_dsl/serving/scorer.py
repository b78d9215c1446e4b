"""What the Recommender asks of a kind of model, and the one way to each kind."""

import importlib
from typing import Protocol

from recbole_dsl.errors import shown
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR, Ids, Mask
from recbole_dsl.serving.top_k_numpy import Found

# the module whose ``load(artifact, model_class)`` makes the scorer of a kind; a network's needs RecBole
_MODULES = {"product": "recbole_dsl.serving.product", "network": "recbole_dsl.network_scoring.artifact"}


class Scorer(Protocol):
    """Finds the items with the highest scores.

    It knows only ids: users from 0 to ``n_users - 1`` and items from 0 to ``n_items - 1``. They are RecBole's
    less 1, as RecBole's 0 is padding. Tokens, user histories, unknown users and batches are left to the
    Recommender. Each answer is (ids, scores), (n, k) int64 and (n, k) float32, the highest score first and ties by
    the smaller id; where fewer than ``k`` items remain the rest is -1 and -inf.

    Attributes:
        takes_users: whether `top` scores users that were trained on.
        takes_histories: whether `top_for` scores histories.
        why_no_histories: why it does not, in words that go on from "takes none, ".
        takes_items: whether `with_items` takes items that came after training.
        why_no_items: why it does not, in the same way.
        batch_size: how many users to score at once.
    """

    takes_users: bool
    takes_histories: bool
    why_no_histories: str
    takes_items: bool
    why_no_items: str
    batch_size: int

    def prepare(self) -> None:
        """Build, load and compile now what the first requests would build or do without. Requests may go on."""

    def top(self, users: Ids, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        """The best items for ``users`` (n,).

        Args:
            k: from 1 to the number of items.
            exclude: n lists of items that a user does not get, each ascending and distinct; None for none.
            candidates: (n_items,) which items there are for all users; None for all.
        """

    def top_for(self, histories: CSR, k: int, exclude: CSR | None, candidates: Mask | None) -> Found:
        """The best items for users of whom only the history is known, oldest item first; none is empty."""

    def similar(self, items: Ids, k: int, candidates: Mask | None) -> Found:
        """The items most similar to ``items`` (n,) by the cosine of their vectors, themselves left out.

        Raises:
            DSLError: if the model has no vectors of items.
        """

    def with_items(self, lists: CSR, trained: CSR) -> "Scorer":
        """A scorer of the same items and n more.

        Args:
            lists: the users who had each of these, n lists, each ascending, distinct and not empty.
            trained: the known items of each user in the training data.
        """


def load_scorer(artifact: Artifact, model_class: type | None = None) -> Scorer:
    """The scorer of ``artifact``.

    Args:
        model_class: the model's class, if it is served by its network and not one of RecBole's.

    Raises:
        DSLError: if the artifact is of no kind that is known, or makes no sense.
    """
    kind = artifact.header["kind"]
    if kind not in _MODULES:
        artifact.refuse(f"is of the kind {shown(kind)}, must be one of {', '.join(_MODULES)}")
    scorer: Scorer = importlib.import_module(_MODULES[kind]).load(artifact, model_class)
    return scorer
