"""Make one of RecBole's trainers in one of several processes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.distributed as dist
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recbole_dsl.distributed.agreement import is_first, is_parallel
from recbole_dsl.patching import Patch

_TENSORBOARD = Patch("recbole.trainer.trainer", "get_tensorboard", "only the first of several processes shows it")


@contextmanager
def parallel_init(trainer: Any, config: Config, model: AbstractRecommender) -> Iterator[AbstractRecommender]:
    """Yield the model for RecBole's constructor of ``trainer``, which within it acts as in a single process.

    RecBole's own way is for GPUs only, and all processes make folders and files at once. Here the first makes
    them, then the others go on. Afterwards ``trainer.distributed_model`` adds up the gradients of all.
    """
    if not is_parallel(config):
        yield model
        return
    is_cpu = config["device"].type == "cpu"
    if not is_cpu:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    goes_first = is_first(config)
    if not goes_first:
        dist.barrier()
    config["single_spec"] = True
    try:
        with nullcontext() if goes_first else _TENSORBOARD.by(lambda logger: _Nowhere()):
            yield model
    finally:
        config["single_spec"] = False
    if goes_first:
        dist.barrier()
    # of sparse weights only the gradients of alive entries are sent: every process makes the same topology
    trainer.distributed_model = DistributedDataParallel(model, None if is_cpu else [config["local_rank"]])


class _Nowhere:
    """A TensorBoard writer that drops everything: only the first process writes."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None
