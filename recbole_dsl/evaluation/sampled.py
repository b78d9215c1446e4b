"""Evaluation with sampled negative items, in blocks of users, with RecBole's random numbers."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction
from recbole.data.transform import Equal
from recbole.sampler import RepeatableSampler, Sampler
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor

from recbole_dsl.checkpoint.random_state import equal_states, random_state, restore_random_state
from recbole_dsl.data.negatives import sample_by_users
from recbole_dsl.data.sampling import PairSampler
from recbole_dsl.evaluation.pairs import Pairs
from recbole_dsl.evaluation.product import Rounding, operands_of, products
from recbole_dsl.evaluation.ranking import Ranked, RankingCollector, does_as_recbole
from recbole_dsl.evaluation.search import SCORES, undecided

# the most pairs of a block: its users times the pairs of the user with most
_PAIRS = 2**19
# a matrix of users x items is made, as in RecBole, if it has at most so many times the pairs
_DENSE = 4
# rows for which `predict` is compared with a product
_COMPARED = 64
# RecBole's samplers and ours, in which no code of the user's own draws
_SAMPLERS = Sampler, PairSampler, RepeatableSampler


@dataclass(frozen=True, eq=False)
class Sampled:
    """A block of users with their candidates.

    Attributes:
        rows: the rows of the data whose items are the positive ones, by ascending users.
        counts: (n_users,) int64: how many rows each user has.
        users: (pairs,) int64: the user of each pair of a user and a candidate, ascending from 0.
        items: (pairs,) int64: the candidates. Of each user the positive ones come first.
        is_positive: (pairs,) bool.
        loader: that which the block is of.
    """

    rows: Interaction
    counts: Tensor
    users: Tensor
    items: Tensor
    is_positive: Tensor
    loader: "_Blocks"

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def positive(self) -> Pairs:
        """The positive items."""
        return Pairs(torch.repeat_interleave(self.counts), self.rows[self.loader.iid_field])

    @cached_property
    def places(self) -> Tensor:
        """(pairs,) int64: the place of each pair among those of its user."""
        n_pairs = torch.bincount(self.users, minlength=len(self))
        return torch.arange(len(self.users)) - torch.repeat_interleave(n_pairs.cumsum(0) - n_pairs, n_pairs)

    def of(self, which: Tensor | slice = slice(None)) -> Tensor:
        """The row of each pair, or of those that ``which`` selects: a user's rows take turns."""
        users = self.users[which]
        return (self.counts.cumsum(0) - self.counts)[users] + self.places[which] % self.counts[users]

    def interaction(self, which: Tensor | slice = slice(None)) -> Interaction:
        """RecBole's batch: a row for each pair, or for those that ``which`` selects."""
        loader, of = self.loader, self.of(which)
        repeated = Interaction({name: self.rows[name][of] for name in self.rows})
        repeated[loader.iid_field] = self.items[which]
        repeated = loader._dataset.join(repeated)
        repeated.update(Interaction({loader.label_field: self.is_positive[which].float()}))
        return repeated


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
    bounds = list(_bounds(loader.uid2items_num[loader.uid_list] * loader.times))
    vars(blocks).update(bounds=bounds, multiplies=_multiplies(trainer, loader), rounding=Rounding())
    return blocks


def rank(trainer: Any, block: Sampled) -> tuple[Any, ...]:
    """What RecBole's trainer returns for a batch: the interaction, its scores and the positive items.

    For metrics of lists, the scores are a `Ranked`. A product of vectors gives the scores of models that make them
    so. RecBole may round them otherwise: of users for whom a metric could tell, the model predicts them.
    """
    found = _by_product(trainer, block) if block.loader.multiplies else None
    if found is not None:
        return block.rows, _ranked(trainer, block, *found), None, None
    interaction = block.interaction()
    scores = _predict(trainer, interaction)
    if trainer.config["eval_type"] == EvaluatorType.VALUE:
        return interaction, scores, *block.positive
    is_few = max(trainer.eval_collector.topk) >= trainer.tot_item_num or scores.shape != block.users.shape
    if is_few or _is_dense(trainer, block) or bool(scores.isnan().any()):
        return interaction, _matrix(trainer, block.users, block.items, scores, len(block)), *block.positive
    return interaction, _ranked(trainer, block, _side_by_side(trainer, block, scores)), None, None


class _Blocks(NegSampleEvalDataLoader):
    """The loader that `in_blocks` returns."""

    bounds: list[tuple[int, int]]
    multiplies: bool
    rounding: Rounding

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
        drawn = sample_by_users(self._sampler, users, counts, positive.numpy(), self.neg_sample_num)
        pairs = np.stack([counts, counts * self.neg_sample_num], 1)
        is_positive = np.repeat(np.tile([True, False], len(users)), pairs.ravel())
        items = np.empty(len(is_positive), np.int64)
        items[is_positive], items[~is_positive] = positive.numpy(), drawn
        owners = torch.from_numpy(np.repeat(np.arange(len(users)), pairs.sum(1)))
        items = torch.from_numpy(items).to(positive.dtype)
        return Sampled(data, torch.from_numpy(counts), owners, items, torch.from_numpy(is_positive), self)


class _Candidates(NamedTuple):
    """The candidates of each user of a block, side by side.

    Attributes:
        ids: (users, width) int64; None if the items are in order.
        scores: (users, width), with -inf for what is no candidate.
        is_positive: (users, width) bool.
    """

    ids: Tensor | None
    scores: Tensor
    is_positive: Tensor


def _by_product(trainer: Any, block: Sampled) -> tuple[_Candidates, Tensor] | None:
    """The candidates of a block, scored by the vectors of its rows or users, and how far two scores may be off.

    None if the scores are no product of vectors.
    """
    rows, of_rows = block.rows, trainer.model.type == ModelType.SEQUENTIAL
    if not of_rows:
        # a user's rows are alike
        rows = rows[block.counts.cumsum(0) - block.counts]
    operands = operands_of(trainer.model, rows.to(trainer.device), trainer.tot_item_num)
    if operands is None:
        return None
    margins = block.loader.rounding.margins(operands)
    if margins is None:
        return None
    device = margins.device
    if of_rows:
        owners = block.positive.users.to(device)
        margins = margins.new_zeros(len(block)).scatter_reduce_(0, owners, margins, "amax")
    elif _is_dense(trainer, block):
        scores = torch.mm(*operands)
        is_candidate = torch.zeros_like(scores, dtype=torch.bool)
        is_candidate[block.users.to(device), block.items.to(device)] = True
        return _in_order(block, scores.masked_fill_(~is_candidate, -torch.inf)), margins
    of, items = (block.of() if of_rows else block.users).to(device), block.items.to(device)
    scores = products(operands, of, items)
    if _is_dense(trainer, block):
        return _in_order(block, _matrix(trainer, block.users, block.items, scores, len(block))), margins
    return _side_by_side(trainer, block, scores), margins


def _ranked(trainer: Any, block: Sampled, candidates: _Candidates, margins: Tensor | None = None) -> Ranked:
    """The best of ``candidates`` in the order of RecBole's scores.

    Args:
        margins: (users,): how far the difference of two scores may be off; None if they are RecBole's.
    """
    collector = trainer.eval_collector
    k = max(collector.topk)
    ids, values, is_positive = candidates
    best, places = torch.topk(values, k + 1)
    top, hits = places if ids is None else ids.gather(1, places), is_positive.gather(1, places)
    others = values.masked_fill(~is_positive, -torch.inf).scatter_(1, places, -torch.inf).amax(1)
    open_ = undecided(best, hits, others, 0 if margins is None else margins, collector.needs_items)
    # RecBole orders equal scores by its search in the scores of all items
    for rows in _in_parts(open_, trainer.tot_item_num):
        if margins is not None:
            numbers = torch.full((len(block),), -1)
            numbers[rows.cpu()] = torch.arange(len(rows))
            users = numbers[block.users]
            is_here = users >= 0
            scores = _predict(trainer, block.interaction(is_here))
            dense = _matrix(trainer, users[is_here], block.items[is_here], scores, len(rows))
        else:
            dense = values.new_full((len(rows), trainer.tot_item_num), -torch.inf)
            dense.scatter_(1, ids[rows], values[rows])
        top[rows, :k] = torch.topk(dense, k).indices
    pairs = block.positive.to(top.device)
    return Ranked(top[:, :k].contiguous(), pairs, None if ids is None else (ids, values))


def _predict(trainer: Any, interaction: Interaction) -> Tensor:
    if len(interaction) <= trainer.test_batch_size:
        return trainer.model.predict(interaction.to(trainer.device))
    return trainer._spilt_predict(interaction, len(interaction))


@torch.no_grad()
def _multiplies(trainer: Any, loader: AbstractDataLoader) -> bool:
    """Whether ``predict`` gives the product that ``full_sort_predict`` computes, and metrics need no scores.

    The model must be RecBole's. The scores of some rows of ``loader`` are compared.
    """
    model, collector, n_items = trainer.model, trainer.eval_collector, loader._dataset.item_num
    code = [type(model), *(getattr(type(model), name, None) for name in ("predict", "full_sort_predict"))]
    if not all(getattr(part, "__module__", "").startswith("recbole.") for part in code):
        return False
    if trainer.config["eval_type"] == EvaluatorType.VALUE or not collector.needs_ranks_alone:
        return False
    if max(collector.topk) >= n_items or not len(loader._dataset):
        return False
    places = np.linspace(0, len(loader._dataset) - 1, min(_COMPARED, len(loader._dataset))).astype(np.int64)
    rows = loader.transform(loader._dataset, loader._dataset[places])
    model.eval()
    before = random_state()
    operands = operands_of(model, rows.to(trainer.device), n_items)
    try:
        predicted = None if operands is None else model.predict(loader._dataset.join(rows).to(trainer.device))
    except Exception:
        # an error of the model's own comes again when its scores are computed
        predicted = None
    if not equal_states(before, random_state()):
        restore_random_state(before)
        return False
    if predicted is None or predicted.shape != (len(rows),):
        return False
    items = rows[loader.iid_field].to(predicted.device)
    expected = products(operands, torch.arange(len(rows), device=items.device), items)
    margins = Rounding().margins(operands)
    # NaN is not close
    return margins is not None and bool(((expected - predicted).abs() <= margins).all())


def _is_dense(trainer: Any, block: Sampled) -> bool:
    return len(block) * trainer.tot_item_num <= _DENSE * len(block.users)


def _matrix(trainer: Any, users: Tensor, items: Tensor, scores: Tensor, n_users: int) -> Tensor:
    """(n_users, n_items): RecBole's matrix of ``scores``, with -inf for other items."""
    dense = scores.new_full((n_users, trainer.tot_item_num), -torch.inf)
    dense[users.to(scores.device), items.to(scores.device)] = scores
    return dense


def _in_order(block: Sampled, scores: Tensor) -> _Candidates:
    is_positive = torch.zeros_like(scores, dtype=torch.bool)
    is_positive[block.positive.users.to(scores.device), block.positive.items.to(scores.device)] = True
    return _Candidates(None, scores, is_positive)


def _side_by_side(trainer: Any, block: Sampled, scores: Tensor) -> _Candidates:
    """The distinct candidates of each user and their ``scores``, and item 0 with -inf at all other places."""
    # beside all, a place for what is no candidate
    shape = len(block), max(int(block.places.max()) + 1, max(trainer.eval_collector.topk)) + 1
    at = (block.users * shape[1] + block.places).to(scores.device)
    ids, values = block.items.new_zeros(shape, device=scores.device), scores.new_full(shape, -torch.inf)
    flags = torch.zeros_like(ids, dtype=torch.bool)
    for filled, part in (ids, block.items), (values, scores), (flags, block.is_positive):
        filled.view(-1)[at] = part.to(scores.device)
    ids, order = torch.sort(ids, dim=1, stable=True)
    values, flags = values.gather(1, order), flags.gather(1, order)
    is_again = ids[:, 1:] == ids[:, :-1]
    # of an item that comes several times, RecBole's last write wins; it is positive if the first is
    while bool((found := is_again & flags[:, :-1] & ~flags[:, 1:]).any()):
        flags[:, 1:] |= found
    ids[:, :-1].masked_fill_(is_again, 0)
    values[:, :-1].masked_fill_(is_again, -torch.inf)
    flags[:, :-1].masked_fill_(is_again, False)
    return _Candidates(ids, values, flags)


def _bounds(lengths: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First and end of each block of users, who have ``lengths`` (n,) pairs."""
    first = longest = 0
    for place, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if place > first and (place - first + 1) * longest > _PAIRS:
            yield first, place
            first, longest = place, length
    yield first, len(lengths)


def _in_parts(which: Tensor, n_items: int) -> tuple[Tensor, ...]:
    rows = which.nonzero()[:, 0]
    return rows.split(max(1, SCORES // n_items)) if len(rows) else ()
