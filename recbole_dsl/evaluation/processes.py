"""Evaluation divided among processes, with the metrics that one process has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_dsl.evaluation.ranking import samples_at_once, with_batches

# what a collector keeps as a row for each user that it has seen
_ROWS = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


@contextmanager
def shared_evaluation(trainer: Any, loader: AbstractDataLoader) -> Iterator[AbstractDataLoader]:
    """A loader of this process's part of ``loader``; within it ``trainer`` collects the parts of all processes.

    The parts are whole batches of the size `samples_at_once`, and none is repeated. What is collected is put in
    the order of a single process before metrics are computed. So every metric is that of one process, even if it
    is no mean over users. If negative items are drawn, every process evaluates all users.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    divided = isinstance(loader, FullSortEvalDataLoader)
    batches = list(torch.arange(loader.sample_size).split(samples_at_once(loader)))
    shares = [batches[r::world_size] for r in range(world_size)]
    # RecBole fails without a batch; the rows of this extra one are dropped afterwards
    mine = (shares[rank] or batches[:1]) if divided else batches
    usual = trainer.eval_collector
    if divided:
        places = [torch.cat(share) if share else torch.empty(0, dtype=torch.int64) for share in shares]
        trainer.eval_collector = _CollectorOfAll(usual, places)
    try:
        yield with_batches(loader, mine)
    finally:
        trainer.eval_collector = usual


class _CollectorOfAll:
    """A collector that returns what the collectors of all processes have collected.

    Args:
        places: for each process, the places of its rows in the order of a single process, (rows,) int64.
    """

    def __init__(self, collector: Collector, places: list[Tensor]):
        self._collector, self._places = collector, places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collector, name)

    def get_data_struct(self) -> DataStruct:
        found = self._collector.get_data_struct()
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, {name: found.get(name) for name in _ROWS if name in found})
        for name in set().union(*parts):
            rows = torch.cat([part[name][: len(places)] for part, places in zip(parts, self._places)])
            found.set(name, torch.empty_like(rows).index_copy_(0, torch.cat(self._places), rows))
        return found
