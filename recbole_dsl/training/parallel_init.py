"""Making one of RecBole's trainers in one of several processes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.distributed as dist
from recbole.config import Config
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.distributed.agreement import data_parallel, is_distributed, is_first, synchronous_norms
from recbole_dsl.patching import Patch

_TENSORBOARD = Patch("recbole.trainer.trainer", "get_tensorboard", "only the first of several processes shows it")


@contextmanager
def parallel_init(trainer: Any, config: Config, model: AbstractRecommender) -> Iterator[AbstractRecommender]:
    """Within it, let RecBole's constructor of ``trainer`` take the model that is given for that of one process.

    RecBole's own way is for GPUs only, and each process makes folders and files of its own, all at once. Here the
    first makes them, then the others go on. Afterwards the gradients of all processes are added up.
    """
    if not is_distributed(config):
        yield model
        return
    model = synchronous_norms(config, model)
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
    trainer.distributed_model = data_parallel(config, model)


class _Nowhere:
    """Takes what is written to TensorBoard, which only the first process shows."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None
