"""The sides of a comparison: RecBole as it is, RecBole with a fused optimizer, masked weights, and sparse ones."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed

from benchmarks.masked import MaskedTrainer
from recbole_dsl import DSLTrainer
from recbole_dsl.sparse.deferred import deferred_tables


class FusedTrainer(Trainer):
    """RecBole's Trainer with the fused Adam that PyTorch has, and that RecBole does not ask for."""

    def _build_optimizer(self, **kwargs):
        return torch.optim.Adam(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )


# side -> its trainer and the options that it adds
SIDES: dict[str, tuple[type, dict[str, Any]]] = {
    "stock": (Trainer, {}),
    "stock_fused": (FusedTrainer, {}),
    "masked_dense": (MaskedTrainer, {}),
    "ours": (DSLTrainer, {}),
    # Adam's steps have no closed form with it
    "ours_weight_decay": (DSLTrainer, {"weight_decay": 1e-6}),
    "ours_sparse_adam": (DSLTrainer, {"learner": "sparse_adam"}),
    "ours_dense_fast_graph": (DSLTrainer, {"density": 1.0, "fast_graph": True}),
    "ours_fast_graph": (DSLTrainer, {"fast_graph": True}),
}
SIDE_NAMES = {
    "stock": "RecBole",
    "stock_fused": "RecBole, fused Adam",
    "masked_dense": "masked dense weights",
    "ours": "ours",
    "ours_weight_decay": "ours, weight_decay=1e-6",
    "ours_sparse_adam": "ours, learner=sparse_adam",
    "ours_dense_fast_graph": "ours, density=1, fast_graph=True",
    "ours_fast_graph": "ours, fast_graph=True",
}
QUIET = {"state": "ERROR", "show_progress": False, "use_gpu": False}


class FirstBatches:
    """A train loader that gives its next ``n`` whole batches each time, and starts anew where it ends.

    So a measured step holds the loader's work for it, and hardly a share in the shuffle that begins an epoch.
    """

    def __init__(self, train_data: Any, n: int):
        if train_data.sample_size < train_data.step:
            raise ValueError(f"train_batch_size={train_data.step}: must be at most {train_data.sample_size}")
        self._train_data, self._n = train_data, n
        self._batches = self._endless()

    def __iter__(self) -> Iterator:
        return islice(self._batches, self._n)

    def __len__(self) -> int:
        return self._n

    def _endless(self) -> Iterator:
        while True:
            yield from (batch for batch in self._train_data if len(batch) == self._train_data.step)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Let the user choose what trains by ``--device``."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what trains")


def on_device(options: argparse.Namespace) -> dict[str, Any]:
    """RecBole's options for the ``--device`` of ``options``."""
    return {"use_gpu": options.device == "cuda"}


def wait() -> None:
    """Until all that was asked of a GPU is done, if one is at work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def step_timer(trainer: Trainer, batches: FirstBatches) -> Callable[[], float]:
    """What trains on the next ``batches`` and gives the seconds of a step, the loader's work included."""

    def run() -> float:
        start = perf_counter()
        trainer._train_epoch(batches, 0)
        wait()
        return (perf_counter() - start) / len(batches)

    return run


def make_config(model: str, dataset: str, options: Mapping[str, Any], files: tuple[str, ...] = ()) -> Config:
    """RecBole's Config, quiet, on a seed."""
    config = Config(model, dataset, list(files) or None, {**QUIET, **options})
    init_seed(config["seed"], config["reproducibility"])
    return config


def load(config: Config) -> tuple[Any, Any, Any]:
    """(train_data, valid_data, test_data) as RecBole prepares them; all sides share them."""
    return data_preparation(config, create_dataset(config))


def build(config: Config, dataset: Dataset, sparse: bool = True) -> AbstractRecommender:
    """The model as `run_recbole_dsl` builds it, or as RecBole does: the one place that knows how."""
    init_seed(config["seed"], config["reproducibility"])
    with deferred_tables() if sparse and config["density"] < 1 else nullcontext():
        model = get_model(config["model"])(config, dataset)
    if sparse:
        DSLTrainer.prepare(config, model)
    return model.to(config["device"])


def make_trainer(side: str, config: Config, dataset: Dataset, total_steps: int) -> Trainer:
    """A trainer of ``side`` over a model of its own, with a topology that lives for ``total_steps``.

    ``config`` gets the options of the side.
    """
    trainer_class, options = SIDES[side]
    for name, value in options.items():
        config[name] = value
    is_ours = issubclass(trainer_class, DSLTrainer)
    trainer = trainer_class(config, build(config, dataset, sparse=is_ours))
    if is_ours:
        trainer.topology.total_steps = total_steps
    elif isinstance(trainer, MaskedTrainer):
        trainer.total_steps = total_steps
    return trainer
