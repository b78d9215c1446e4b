"""Full-sort evaluation in batches of bounded size, and top-k metrics from the ranked items alone."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector
from torch import Tensor

from recbole_dsl.evaluation.pairs import Pairs, is_among

# the most scores of a batch: 4 MB, which stay in the processor's cache from the product to the search
_SCORES = 2**20
# what metrics may need beside the ranked items
_OF_ALL_SCORES = ("rec.meanrank", "rec.score", "data.label")


class Ranked(NamedTuple):
    """The best items of a batch of users, in place of its scores.

    Attributes:
        top: (users, k) int64.
        positive: the positive items.
        candidates: ids and scores of sampled candidates, (users, width) each, with -inf after the last one; None
            if all items are candidates.
    """

    top: Tensor
    positive: Pairs
    candidates: tuple[Tensor, Tensor] | None = None


class RankingCollector(Collector):
    """RecBole's collector, but it searches the best items once and allocates no matrix of users x items.

    Metrics that need every score, such as GAUC, are collected as in RecBole.
    """

    @property
    def needs_ranks_alone(self) -> bool:
        """Whether no metric needs more than the best items of each user."""
        return not any(self.register.need(name) for name in _OF_ALL_SCORES)

    @property
    def needs_items(self) -> bool:
        """Whether a metric needs the ids of the recommended items, and not only which of them are positive."""
        return self.register.need("rec.items")

    def eval_batch_collect(
        self, scores_tensor: Tensor | Ranked, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect what the metrics need of a batch.

        Args:
            scores_tensor: (users, items), float; -inf for items that are not ranked. Or a `Ranked`.
            interaction: the batch.
            positive_u: row of each positive item's user, (positive items,), int64.
            positive_i: the positive items, (positive items,), int64.
        """
        if not isinstance(scores_tensor, Ranked):
            if not self.needs_ranks_alone:
                super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
                return
            top = torch.topk(scores_tensor, max(self.topk), dim=-1).indices
            scores_tensor = Ranked(top, Pairs(positive_u, positive_i).to(top.device))
        if self.needs_items:
            self.data_struct.update_tensor("rec.items", scores_tensor.top)
        if self.register.need("rec.topk"):
            self.data_struct.update_tensor("rec.topk", _found(scores_tensor.top, scores_tensor.positive))
        if scores_tensor.candidates is not None and self.register.need("rec.meanrank"):
            ids, scores = scores_tensor.candidates
            ranks = copy.copy(self)
            ranks.register = SimpleNamespace(need="rec.meanrank".__eq__)
            is_positive = is_among(ids, scores_tensor.positive) & (ids > 0)
            Collector.eval_batch_collect(ranks, scores, interaction, *is_positive.nonzero().unbind(1))


def in_bounded_batches(loader: AbstractDataLoader) -> AbstractDataLoader:
    """A loader of the same samples as ``loader``, in batches of `samples_at_once`."""
    if type(loader) is not FullSortEvalDataLoader:
        return loader
    return with_batches(loader, torch.arange(loader.sample_size).split(samples_at_once(loader)))


def samples_at_once(loader: AbstractDataLoader) -> int:
    """How many samples of ``loader`` make a batch: with full sort, users with about a million scores together.

    RecBole divides ``eval_batch_size`` by the number of items, which leaves one user at a time from 4,096 items
    on. For a sequential model it takes that many users, however many items there are. Loaders of sampled or
    labelled evaluation, and of a class of the user's own, keep their size.
    """
    if type(loader) is FullSortEvalDataLoader:
        return max(1, _SCORES // loader._dataset.item_num)
    return step_of_recbole(loader)


def step_of_recbole(loader: AbstractDataLoader) -> int:
    """How many samples make a batch of RecBole in a single process."""
    usual = copy.copy(loader)
    # RecBole has divided the size by the number of processes
    usual._init_batch_size_and_step()
    return usual.step


def does_as_recbole(trainer: Any, method: str) -> bool:
    """Whether ``method`` of ``trainer`` is RecBole's or ours, and not the user's own."""
    kinds = [kind for kind in type(trainer).__mro__ if method in vars(kind)]
    is_known = all(kind.__module__.split(".")[0] in ("recbole", "recbole_dsl") for kind in kinds)
    return is_known and method not in vars(trainer)


def with_batches(loader: AbstractDataLoader, batches: Sequence[Tensor]) -> AbstractDataLoader:
    """``loader`` with other ``batches``, each the indices of its samples, int64."""
    other = copy.copy(loader)
    # PyTorch's loaders refuse another batch sampler once they are made
    vars(other).update(
        batch_sampler=[batch.tolist() for batch in batches],
        sampler=range(loader.sample_size),
        step=max((len(batch) for batch in batches), default=1),
    )
    return other


def _found(top: Tensor, positive: Pairs) -> Tensor:
    """Which of the ranked items are positive, followed by the number of distinct positive items.

    Args:
        top: (users, k), int64.

    Returns:
        (users, k + 1), int64, as RecBole's metrics read it.
    """
    positive = positive.distinct()
    counts = torch.bincount(positive.users, minlength=len(top))
    return torch.cat([is_among(top, positive).long(), counts[:, None]], dim=1)
