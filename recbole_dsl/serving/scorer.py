"""What the Recommender asks of the part that knows a kind of model."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.serving.lists import Lists

Top = tuple[NDArray[np.int64], NDArray[np.float32]]


class Scorer(Protocol):
    """Finds the items of the highest scores; made by ``load(artifact)`` of the module of the artifact's kind.

    It knows ids only: users from 0 to ``n_users - 1`` and items from 0 to ``n_items - 1``, RecBole's less
    one, for RecBole's 0 is padding. Tokens, seen items, unknown users and the size of batches are the
    Recommender's business. Each answer is (ids, scores), (n, k) int64 and (n, k) float32, the highest score first
    and ties by the smaller id; where fewer than ``k`` items remain the rest is -1 and -inf.

    Attributes:
        takes_users: whether it scores users that were trained on, by `top`.
        takes_histories: whether it scores lists of items, by `top_for`.
        why_no_histories: where it does not, why, in words that go on from "takes none, ".
        batch_size: how many users it wants at once.
    """

    takes_users: bool
    takes_histories: bool
    why_no_histories: str
    batch_size: int

    def prepare(self) -> None:
        """Make, load and compile now what is else made in the first answers, or not at all. Requests may go on."""

    def top(
        self, users: NDArray[np.int64], k: int, exclude: Lists | None, candidates: NDArray[np.bool_] | None
    ) -> Top:
        """The best items for ``users`` (n,).

        Args:
            k: from 1 to the number of items.
            exclude: n lists of items that a user does not get, each ascending and distinct; None for none.
            candidates: (n_items,), the items that there are for all of them; None for all.
        """

    def top_for(
        self, histories: Lists, k: int, exclude: Lists | None, candidates: NDArray[np.bool_] | None
    ) -> Top:
        """The same for users of whom only what they had is known, the oldest first; no history is empty."""

    def similar(self, items: NDArray[np.int64], k: int, candidates: NDArray[np.bool_] | None) -> Top:
        """The items most like ``items`` (n,) by the cosine of their vectors, themselves left out.

        Raises:
            DSLError: if the model has no vectors of items.
        """
