"""Groups of users by activity and of items by popularity, and a model's quality on each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

GROUPS = 5
_TOP = 10


@dataclass(frozen=True)
class Groups:
    """Users and items in five groups each, by their number of training interactions, the fewest first.

    Attributes:
        counts: "user" and "item" -> (rows,), training interactions.
        members: "user" and "item" -> five arrays of ids. All user groups have the same number of users, all item
            groups the same number of interactions.
    """

    counts: Mapping[str, NDArray]
    members: Mapping[str, list[NDArray]]

    @classmethod
    def of(cls, dataset: Dataset) -> "Groups":
        """The groups of the users and items of the training data."""
        matrix = dataset.inter_matrix("csr")
        counts = {"user": np.asarray(matrix.sum(1)).ravel(), "item": np.asarray(matrix.sum(0)).ravel()}
        order = {side: 1 + np.argsort(count[1:], kind="stable") for side, count in counts.items()}
        share = counts["item"][order["item"]].cumsum() / counts["item"].sum()
        cuts = np.searchsorted(share, np.arange(1, GROUPS) / GROUPS)
        members = {"user": np.array_split(order["user"], GROUPS), "item": np.split(order["item"], cuts)}
        return cls(counts, members)

    def ranges(self, side: str) -> list[str]:
        """The fewest and the most training interactions of each group, as text; "-" for an empty group."""
        counts = [self.counts[side][group] for group in self.members[side]]
        return [f"{one.min():.0f} - {one.max():.0f}" if len(one) else "-" for one in counts]


@dataclass(frozen=True)
class Hits:
    """Which test items are among the first ten of a model.

    Attributes:
        users, items: (test interactions,), the ids.
        found: (test interactions,), bool: whether the item is among the first ten of the user.
        ndcg: user -> NDCG@10.
    """

    users: NDArray
    items: NDArray
    found: NDArray
    ndcg: Mapping[int, float]

    @classmethod
    def of(cls, model: AbstractRecommender, test_data: Any) -> "Hits":
        """Those of ``model`` on ``test_data``, RecBole's loader that ranks all items."""
        device = next(model.parameters()).device
        model.eval()
        return cls._of(lambda interaction: _scores(model, interaction.to(device), test_data), test_data)

    @classmethod
    def of_popularity(cls, counts: NDArray, test_data: Any) -> "Hits":
        """Those of a list of the most popular items, the same for all but for what each has had.

        Args:
            counts: (items,), training interactions; of equal ones the first is taken.
        """
        places = np.empty(len(counts))
        places[np.argsort(-counts, kind="stable")] = np.arange(len(counts), 0, -1)
        scores = torch.from_numpy(places)
        return cls._of(lambda interaction: scores.repeat(len(interaction), 1), test_data)

    @classmethod
    def _of(cls, score: Callable[[Any], torch.Tensor], test_data: Any) -> "Hits":
        users, items, found = [], [], []
        ndcg: dict[int, float] = {}
        discount = 1 / torch.log2(torch.arange(2, _TOP + 2).float())
        for interaction, history, row, positive in test_data:
            scores = score(interaction)
            ids = interaction[test_data.uid_field]
            scores = scores.view(len(ids), -1)
            scores[:, 0] = -torch.inf
            if history is not None:
                scores[history] = -torch.inf
            top = scores.topk(min(_TOP, scores.shape[1])).indices
            hit = (top[row] == positive[:, None].to(top.device)).cpu()
            gains = torch.zeros(len(ids)).index_add_(0, row, (hit * discount[: hit.shape[1]]).sum(1))
            ideal = discount.cumsum(0)[torch.bincount(row, minlength=len(ids)).clamp(1, _TOP) - 1]
            ndcg.update(zip(ids.tolist(), (gains / ideal).tolist()))
            users.append(ids[row].cpu().numpy())
            items.append(positive.cpu().numpy())
            found.append(hit.any(1).numpy())
        return cls(np.concatenate(users), np.concatenate(items), np.concatenate(found), ndcg)

    @property
    def all_ndcg(self) -> float:
        """NDCG@10 of all users with test data."""
        return self.of_users(np.array(list(self.ndcg)))[1]

    @property
    def all_recall(self) -> float:
        """Recall@10 of all users with test data."""
        return self.of_users(np.array(list(self.ndcg)))[0]

    def of_users(self, users: NDArray) -> tuple[float, float]:
        """Mean recall and NDCG of those of ``users`` that have test data; NaN if none has."""
        tested = [user for user in users if user in self.ndcg]
        if not tested:
            return float("nan"), float("nan")
        held = np.bincount(self.users)
        found = np.bincount(self.users, weights=self.found)
        return float(np.mean(found[tested] / held[tested])), float(np.mean([self.ndcg[u] for u in tested]))

    def of_items(self, items: NDArray) -> float:
        """The share of the test interactions with ``items`` that were found; NaN if there are none."""
        tested = self.found[np.isin(self.items, items)]
        return float(tested.mean()) if len(tested) else float("nan")


@torch.no_grad()
def _scores(model: AbstractRecommender, interaction: Any, test_data: Any) -> torch.Tensor:
    """(users, items): the scores of all items, also of models that score pairs only."""
    try:
        return model.full_sort_predict(interaction)
    except NotImplementedError:
        n_items = test_data._dataset.item_num
        pairs = interaction.repeat_interleave(n_items)
        items = torch.arange(n_items).repeat(len(interaction)).to(next(model.parameters()).device)
        pairs.update(type(pairs)({test_data.iid_field: items}))
        return torch.cat([model.predict(part) for part in _parts(pairs)])


def _parts(pairs: Any, size: int = 2**18) -> list[Any]:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]
