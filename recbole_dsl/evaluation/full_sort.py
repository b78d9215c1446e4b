"""Full-sort evaluation of models whose scores are a product of vectors, without a matrix of users x items."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction

from recbole_dsl.checkpoint.random_state import equal_states, random_state, restore_random_state
from recbole_dsl.evaluation.pairs import Pairs
from recbole_dsl.evaluation.product import operands_of
from recbole_dsl.evaluation.ranking import (
    Ranked,
    RankingCollector,
    does_as_recbole,
    samples_at_once,
    step_of_recbole,
)
from recbole_dsl.evaluation.search import Search

# users whose vectors are computed at once; scores that are searched between two steps of a progress bar
_USERS, _SCORES = 4096, 2**30


@torch.no_grad()
def ranked(trainer: Any, loader: AbstractDataLoader) -> AbstractDataLoader:
    """``loader`` with the best items of blocks of users instead of batches, if RecBole would find the same ones.

    That is certain under three conditions. RecBole's own code ranks the scores of the model's
    ``full_sort_predict``. No metric needs more than the best items. And the method is one product, which is tried
    with a small batch here and checked again for every block. A block that is no product is ranked by RecBole. So
    is any model whose method is the user's own, since that may count its calls.
    """
    if type(loader) is not FullSortEvalDataLoader or not loader.sample_size:
        return loader
    collector, n_items = trainer.eval_collector, loader._dataset.item_num
    is_known = does_as_recbole(trainer, "_full_sort_batch_eval") and type(collector) is RankingCollector
    is_known = is_known and type(trainer.model).full_sort_predict.__module__.startswith("recbole.")
    if not is_known or not collector.needs_ranks_alone or max(collector.topk) >= n_items:
        return loader
    trainer.model.eval()
    before = random_state()
    probe = _Block.of(loader, np.arange(min(samples_at_once(loader), loader.sample_size)), trainer.device)
    found = operands_of(trainer.model, probe.interaction, n_items)
    if not equal_states(before, random_state()):
        # the model draws random numbers, and would draw them in another order
        restore_random_state(before)
        return loader
    return loader if found is None else _Blocks.of(loader, trainer)


class _Blocks(FullSortEvalDataLoader):
    """The loader that `ranked` returns: its batches are `Ranked`, or RecBole's."""

    trainer: Any
    usual: AbstractDataLoader
    blocks: Sequence[NDArray[np.int64]]

    @classmethod
    def of(cls, loader: AbstractDataLoader, trainer: Any) -> "_Blocks":
        step, places = step_of_recbole(loader), np.concatenate(loader.batch_sampler)
        at_once = max(1, min(_USERS, _SCORES // loader._dataset.item_num))
        if loader.is_sequential:
            # the rounding of a network's states may depend on the size of the batch
            at_once = min(step, _USERS)
        elif step < at_once:
            # a multiple of RecBole's batch
            at_once -= at_once % step
        blocks = copy.copy(loader)
        blocks.__class__ = cls
        parts = np.split(places, range(at_once, len(places), at_once))
        vars(blocks).update(trainer=trainer, usual=loader, blocks=parts, step=step)
        return blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[Ranked | tuple]:
        trainer, collector, n_items = self.trainer, self.trainer.eval_collector, self._dataset.item_num
        n_users = sum(map(len, self.blocks))
        search = Search(trainer.model, max(collector.topk), self.step, collector.needs_items, n_users)
        for places in self.blocks:
            block = _Block.of(self, places, trainer.device)
            operands = operands_of(trainer.model, block.interaction, n_items)
            top = operands and search.top(operands, block.left_out, block.positive)
            if top is not None:
                yield Ranked(top, block.positive)
            else:
                at_once = samples_at_once(self.usual)
                yield from map(self.collate_fn, np.split(places, range(at_once, len(places), at_once)))


class _Block(NamedTuple):
    """Samples of a loader.

    Attributes:
        interaction: the input of the model.
        left_out: items that are not ranked, beside the padding.
        positive: the positive items.
    """

    interaction: Interaction
    left_out: Pairs
    positive: Pairs

    @classmethod
    def of(cls, loader: FullSortEvalDataLoader, places: NDArray[np.int64], device: torch.device) -> "_Block":
        if loader.is_sequential:
            interaction = loader.transform(loader._dataset, loader._dataset[places])
            none = torch.empty(0, dtype=torch.int64)
            positive = Pairs(torch.arange(len(interaction)), interaction[loader.iid_field])
            left_out = Pairs(none, none)
        else:
            interaction = loader.user_df[places]
            users = interaction[loader.uid_field].numpy()
            left_out, positive = (
                Pairs.of(loader.uid2history_item[users]),
                Pairs.of(loader.uid2positive_item[users]),
            )
        return cls(interaction.to(device), left_out.to(device), positive.to(device))
