"""The life of a topology over a training: since when the alive weights are alive, as published and by default.

    python -m benchmarks.topology_figure --threads 1

trains LightGCN with a tenth of its weights twice and writes results/topology-LightGCN-ml-100k.svg.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import OURS, figure_in
from benchmarks.quality_methods import Case, ours, published
from benchmarks.report import parse
from benchmarks.sides import load, make_config
from recbole_dsl import DSLTrainer, TopologyUpdate, sparse_weights

_ROOT = Path(__file__).parent.parent
_BANDS = 5
_METHODS = {"as published: a random start": published, "ours: a start from the data": ours}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, and write ``topology-<model>-<dataset>.svg``."""
    parser = argparse.ArgumentParser(prog="benchmarks.topology_figure", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="LightGCN")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=_ROOT / "results", help="where the figure goes")
    options = parse(parser, arguments)
    name = f"{options.model}-{options.dataset}"
    lives = {title: _train(method, name, options) for title, method in _METHODS.items()}
    _draw(lives, options.epochs, options.folder / f"topology-{name}.svg")


def _train(method: Callable[[Case], DSLTrainer], name: str, options: argparse.Namespace) -> "_Life":
    with tempfile.TemporaryDirectory() as folder:
        own = {"epochs": options.epochs, "stopping_step": options.epochs}
        own |= {"checkpoint_dir": folder, "data_path": options.data_path}
        files = (str(_ROOT / "properties" / f"{name}.yaml"),)
        config = make_config(options.model, options.dataset, own, files)
        data = load(config)
        trainer = method(Case(config, data, dict))
        life = _Life(trainer, len(data[0]))
        trainer.fit(data[0], data[1], verbose=False, show_progress=False)
    return life


class _Life:
    """At which update each weight of a trainer's model came alive, asked after each update.

    Attributes:
        ages: for the start (0) and each update, an array of how many of the alive weights came at each.
        epochs: when these were, a fraction of one included.
        exploration_rate: of the last one.
    """

    def __init__(self, trainer: DSLTrainer, steps_an_epoch: int):
        self.ages: list[NDArray[np.int64]] = []
        self.epochs: list[float] = []
        self.exploration_rate = 0.0
        self._steps_an_epoch = steps_an_epoch
        self._model, self._topology = trainer.model, trainer.topology
        self._born: NDArray[np.int64] | None = None
        self._told = self._topology.on_update
        self._topology.on_update = self._after
        trainer.optimizer.register_step_pre_hook(self._before)

    def _before(self, *_: object) -> None:
        if self._born is None:
            self._born = np.full(len(self._alive()), -1)
            self._count(0.0)

    def _after(self, update: TopologyUpdate) -> None:
        self._told(update)
        self._count(update.step / self._steps_an_epoch)
        self.exploration_rate = update.exploration_rate

    def _count(self, epoch: float) -> None:
        alive = self._alive()
        self._born = np.where(alive, np.where(self._born < 0, len(self.ages), self._born), -1)
        self.ages.append(np.bincount(self._born[alive]))
        self.epochs.append(epoch)

    def _alive(self) -> NDArray[np.bool_]:
        """Whether each weight of the sparse tensors is alive, one tensor after the other."""
        masks = []
        for weight in sparse_weights(self._model).values():
            mask = np.zeros((weight.n_rows, weight.n_columns), bool)
            rows = np.repeat(np.arange(weight.n_rows), weight.row_offsets.long().diff().numpy())
            mask[rows, weight.columns.long().numpy()] = True
            masks.append(mask.ravel())
        return np.concatenate(masks)


def _draw(lives: Mapping[str, _Life], end: int, path: Path) -> None:
    shades = [OURS, *(str(0.4 + 0.5 * number / _BANDS) for number in range(_BANDS))]
    # the epochs in which the weights of each band came
    bounds = np.linspace(0, end, _BANDS + 1).round()
    names = ["the start", *(f"epochs {low:.0f} to {high:.0f}" for low, high in pairwise(bounds))]
    with figure_in(path, len(lives), figsize=(9, 3.6), sharey=True) as (_, axes):
        for axis, (title, life) in zip(axes, lives.items()):
            band = np.searchsorted(bounds, life.epochs)
            alive = life.ages[0].sum()
            counts = [np.bincount(band[: len(ages)], ages, _BANDS + 1) for ages in life.ages]
            shares = 100 * np.array([*counts, counts[-1]]).T / alive
            axis.stackplot([*life.epochs, end], shares, colors=shades, labels=names, step="post", linewidth=0)
            axis.set(xlabel="epoch", xlim=(0, end), ylim=(0, 100))
            axis.set_title(f"{title}; {life.exploration_rate:.0%} of all weights ever alive", fontsize=9)
        axes[0].set_ylabel("% of the alive weights, by when they came")
        axes[-1].legend(fontsize=7, loc="lower left", reverse=True)


if __name__ == "__main__":
    main()
