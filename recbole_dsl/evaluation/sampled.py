"""Evaluation with sampled negative items, in blocks of users, with RecBole's random numbers."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.transform import Equal
from recbole.sampler import RepeatableSampler, Sampler
from recbole.utils import EvaluatorType
from torch import Tensor

from recbole_dsl.data.sampling import PairSampler
from recbole_dsl.evaluation.pairs import Pairs, is_among
from recbole_dsl.evaluation.ranking import Ranked, RankingCollector, does_as_recbole
from recbole_dsl.evaluation.search import SCORES, undecided

# the most pairs of a block: its users times the pairs of the user with most
_PAIRS = 2**17
# a matrix of users x items is made, as in RecBole, if it has at most so many times the pairs
_DENSE = 4
# RecBole's samplers and ours, in which no code of the user's own draws
_SAMPLERS = Sampler, PairSampler, RepeatableSampler


class Sampled(NamedTuple):
    """A block of users, in the form of a batch of RecBole.

    Attributes:
        interaction: a row for each pair of a user and a candidate.
        users: (pairs,) int64: the user of each pair, ascending from 0.
        positive_u: the users of the positive items, (positive items,) int64.
        positive_i: these items.
    """

    interaction: Interaction
    users: Tensor
    positive_u: Tensor
    positive_i: Tensor


def in_blocks(trainer: Any, loader: AbstractDataLoader) -> AbstractDataLoader:
    """``loader`` with `Sampled` blocks instead of batches, if they certainly hold what RecBole would draw.

    RecBole collects the candidates user by user, and allocates a matrix of users x items for their scores.
    """
    is_known = type(loader) is NegSampleEvalDataLoader and type(trainer.eval_collector) is RankingCollector
    if not is_known or not does_as_recbole(trainer, "_neg_sample_batch_eval") or loader.num_workers:
        return loader
    arguments = loader.neg_sample_args
    if "none" in (arguments["distribution"], arguments["sample_num"]) or arguments.get("dynamic"):
        return loader
    if type(loader.transform) is not Equal or type(loader._sampler) not in _SAMPLERS:
        return loader
    blocks = copy.copy(loader)
    blocks.__class__ = _Blocks
    vars(blocks).update(bounds=list(_bounds(loader.uid2items_num[loader.uid_list] * loader.times)))
    return blocks


def rank(trainer: Any, block: Sampled) -> tuple[Any, ...]:
    """What RecBole's trainer returns for a batch: the interaction, its scores and the positive items.

    For metrics of lists, the scores are a `Ranked`.
    """
    interaction, users, *positive = block
    if len(interaction) <= trainer.test_batch_size:
        scores = trainer.model.predict(interaction.to(trainer.device))
    else:
        scores = trainer._spilt_predict(interaction, len(interaction))
    if trainer.config["eval_type"] == EvaluatorType.VALUE:
        return interaction, scores, *positive
    collector, items = trainer.eval_collector, interaction[trainer.config["ITEM_ID_FIELD"]].to(scores.device)
    users, n_users, n_items = users.to(scores.device), int(users[-1]) + 1, trainer.tot_item_num
    k = max(collector.topk)
    is_dense = n_users * n_items <= _DENSE * len(users)
    if is_dense or k >= n_items or scores.shape != users.shape or bool(scores.isnan().any()):
        dense = scores.new_full((n_users, n_items), -torch.inf)
        dense[users, items] = scores
        return interaction, dense, *positive
    pairs = Pairs(*positive).to(scores.device)
    ids, values = _side_by_side(users, items, scores, n_users, n_items, k)
    best, places = torch.topk(values, k + 1)
    top = ids.gather(1, places)
    # RecBole orders equal scores by its search in the scores of all items
    is_other = is_among(ids, pairs).scatter_(1, places, False)
    others = values.masked_fill(~is_other, -torch.inf).amax(1)
    for rows in _in_parts(undecided(best, is_among(top, pairs), others, 0, collector.needs_items), n_items):
        dense = values.new_full((len(rows), n_items), -torch.inf).scatter_(1, ids[rows], values[rows])
        top[rows, :k] = torch.topk(dense, k).indices
    return interaction, Ranked(top[:, :k].contiguous(), pairs, (ids, values)), None, None


class _Blocks(NegSampleEvalDataLoader):
    """The loader that `in_blocks` returns."""

    bounds: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[Sampled]:
        for first, stop in self.bounds:
            yield self._block(self.uid_list[first:stop])

    def _block(self, users: NDArray[np.int64]) -> Sampled:
        # the rows are sorted by users
        rows = slice(self.uid2index[users[0]].start, self.uid2index[users[-1]].stop)
        counts = self.uid2items_num[users]
        data = self.transform(self._dataset, self._dataset[rows])
        positive = data[self.iid_field]
        ends = np.cumsum(counts)
        parts = []
        for user, of_user in zip(users, np.split(positive.numpy(), ends[:-1])):
            # user by user: RecBole draws again for one user before it draws for the next
            drawn = self._sampler.sample_by_user_ids(np.full(len(of_user), user), of_user, self.neg_sample_num)
            parts += of_user, drawn.numpy()
        # the rows of a user, once for each candidate of a row
        lengths = counts * self.times
        place = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        of = np.repeat(counts, lengths)
        index = torch.from_numpy(np.repeat(ends - counts, lengths) + place % of)
        repeated = Interaction({name: data[name][index] for name in data})
        repeated[self.iid_field] = torch.from_numpy(np.concatenate(parts)).to(positive.dtype)
        repeated = self._dataset.join(repeated)
        repeated.update(Interaction({self.label_field: torch.from_numpy((place < of).astype(np.float32))}))
        owners = np.arange(len(users))
        return Sampled(
            repeated,
            torch.from_numpy(np.repeat(owners, lengths)),
            torch.from_numpy(np.repeat(owners, counts)),
            positive,
        )


def _bounds(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and end of each block of users, who have ``lengths`` (n,) pairs."""
    first = longest = 0
    for place, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if place > first and (place - first + 1) * longest > _PAIRS:
            yield first, place
            first, longest = place, length
    yield first, len(lengths)


def _side_by_side(
    users: Tensor, items: Tensor, scores: Tensor, n_users: int, n_items: int, k: int
) -> tuple[Tensor, Tensor]:
    """The distinct candidates of each user and their scores, (n_users, width) each; then item 0 with -inf."""
    keys, order = torch.sort(users * n_items + items, stable=True)
    # if an item comes twice, RecBole's last write wins
    is_last = torch.ones_like(keys, dtype=torch.bool)
    is_last[:-1] = keys[1:] != keys[:-1]
    keys, order = keys[is_last], order[is_last]
    owners = keys // n_items
    counts = torch.bincount(owners, minlength=n_users)
    places = torch.arange(len(keys), device=keys.device) - (counts.cumsum(0) - counts)[owners]
    width = max(int(counts.max()), k) + 1
    ids = keys.new_zeros((n_users, width))
    values = scores.new_full((n_users, width), -torch.inf)
    ids[owners, places], values[owners, places] = keys % n_items, scores[order]
    return ids, values


def _in_parts(which: Tensor, n_items: int) -> tuple[Tensor, ...]:
    rows = which.nonzero()[:, 0]
    return rows.split(max(1, SCORES // n_items)) if len(rows) else ()
