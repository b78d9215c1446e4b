"""Quality at a budget: model x dataset x density x method x seed, a line of JSON each, and tables from the lines.

    python -m benchmarks.quality --threads 1 --models BPR --datasets ml-100k --data_path dataset
    python -m benchmarks.quality --tables

The first trains what is not yet in results/quality.jsonl; it may be killed and started again, and several may run
side by side on different models or datasets. The second writes the tables of results/quality.md, and the files of
properties/ with what was chosen for our recipe, from the lines.

For each method the weight decay and then the learning rate are chosen from one grid, on the validation data of the
first seed at density 0.1; the other densities and seeds use that choice.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Optional

import torch
import yaml
from recbole.config import Config

from benchmarks.quality_lines import Run, append_line, best_of, chosen_lines, read_lines
from benchmarks.quality_methods import METHODS, Case
from benchmarks.quality_tables import write_page
from benchmarks.report import parse
from benchmarks.sides import load, make_config
from recbole_dsl import sparse_weights

_ROOT = Path(__file__).parent.parent
_LINES = _ROOT / "results" / "quality.jsonl"
_ABOUT = """#
# Learning rate and weight decay are those that benchmarks.quality chose on the validation data for our recipe, the
# default of every option of ours. Written by python -m benchmarks.quality --tables.
# An .inter file with ratings may hold some that are no sign of liking: for ml-1m as RecBole downloads it, load the
# rating as well and add val_interval: {rating: "[3,inf)"}.
"""
DENSITIES = 0.1, 0.2, 0.05, 0.5
SEEDS = 2020, 2021, 2022
WEIGHT_DECAYS = 5e-6, 1e-6, 2e-5
# each as a multiple of the model's own
LEARNING_RATES = 1.0, 0.5, 2.0

COMMON = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
    "metrics": ["Recall", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "epochs": 200,
    "stopping_step": 10,
    "train_batch_size": 4096,
    "eval_batch_size": 409_600,
}
MODELS: dict[str, dict[str, Any]] = {
    "BPR": {"embedding_size": 64, "learning_rate": 0.002},
    "LightGCN": {"embedding_size": 64, "n_layers": 3, "learning_rate": 0.005},
    "NeuMF": {
        "mf_embedding_size": 64,
        "mlp_embedding_size": 64,
        "mlp_hidden_size": [128, 64],
        "learning_rate": 0.001,
        # it has no fast scoring of all items
        "eval_step": 5,
        "stopping_step": 3,
    },
    "MultiVAE": {
        "mlp_hidden_size": [600],
        "latent_dimension": 128,
        "learning_rate": 0.001,
        "train_batch_size": 64,
    },
}


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Train what is missing, or write the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "ml-1m", "lastfm"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--densities", nargs="+", type=float, default=DENSITIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, help="fewer than 200, for a trial")
    parser.add_argument("--lines", type=Path, default=_LINES, help="the file of results")
    parser.add_argument("--tables", action="store_true", help="write the tables, train nothing")
    options = parse(parser, arguments)
    if not options.tables:
        for model in options.models:
            for dataset in options.datasets:
                _Cell(model, dataset, options).train_missing()
    lines = read_lines(options.lines)
    write_page(lines, options.lines.with_suffix(".md"))
    if options.lines == _LINES:
        _write_properties(lines)


def _write_properties(lines: list[Mapping[str, Any]]) -> None:
    """properties/<model>-<dataset>.yaml, with what the grid chose for our recipe."""
    for line in chosen_lines(lines):
        if (line["method"], line["density"], line["seed"]) != ("ours", DENSITIES[0], SEEDS[0]):
            continue
        name = f"{line['model']}-{line['dataset']}"
        tuned = {key: line[key] for key in ("learning_rate", "weight_decay", "density")}
        command = f"python run_recbole_dsl.py --model={line['model']} --dataset={line['dataset']}"
        head = f"# {command} --config_files=properties/{name}.yaml\n{_ABOUT}\n"
        body = yaml.safe_dump(
            {**COMMON, **MODELS[line["model"]], **tuned}, sort_keys=False, default_flow_style=None
        )
        (_ROOT / "properties" / f"{name}.yaml").write_text(head + body)


class _Cell:
    """The runs of one model on one dataset."""

    def __init__(self, model: str, dataset: str, options: argparse.Namespace):
        self._model, self._dataset, self._options = model, dataset, options
        self._dense: dict[int, dict[str, torch.Tensor]] = {}

    def train_missing(self) -> None:
        """The grid at the first density and seed, then the other densities, then the other seeds."""
        methods, (first_density, *densities), (first_seed, *seeds) = (
            self._options.methods,
            self._options.densities,
            self._options.seeds,
        )
        chosen = {method: self._tune(method, first_density, first_seed) for method in methods}
        for seed in (first_seed, *seeds):
            for density in (first_density, *densities):
                for method, run in chosen.items():
                    if method != "dense" or density == first_density:
                        self._line(run.with_(seed=seed, density=1.0 if method == "dense" else density))

    def _tune(self, method: str, density: float, seed: int) -> Run:
        base = MODELS[self._model]["learning_rate"]
        start = Run(
            self._model,
            self._dataset,
            method,
            1.0 if method == "dense" else density,
            seed,
            base,
            WEIGHT_DECAYS[0],
            self._options.epochs or COMMON["epochs"],
        )
        best = self._best([start.with_(weight_decay=decay) for decay in WEIGHT_DECAYS])
        return self._best([best.with_(learning_rate=round(base * factor, 8)) for factor in LEARNING_RATES])

    def _best(self, runs: list[Run]) -> Run:
        return best_of([self._line(run) for run in runs])

    def _line(self, run: Run) -> Mapping[str, Any]:
        """The line of ``run``, trained if it is not in the file yet."""
        found = [line for line in read_lines(self._options.lines) if Run.of(line) == run]
        if found:
            return found[0]
        start = perf_counter()
        line = {**asdict(run), **self._train(run), "seconds": round(perf_counter() - start, 1)}
        append_line(self._options.lines, line)
        print(json.dumps(line), flush=True)
        return line

    def _train(self, run: Run) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            config = self._config(run.seed, run.learning_rate, run.weight_decay, run.density, folder)
            data = self._load()
            trainer = METHODS[run.method](Case(config, data, lambda: self._dense_weights(run.seed)))
            trainer.fit(data[0], data[1], verbose=False, show_progress=False)
            valid = trainer.evaluate(data[1])
            test = trainer.evaluate(data[2])
        cost = trainer.cost
        return {
            "valid_ndcg": valid["ndcg@10"],
            "test_ndcg": test["ndcg@10"],
            "test_recall": test["recall@10"],
            "best_epoch": len(trainer.train_loss_dict) - 1 - trainer.cur_step * config["eval_step"],
            "weights": cost.weights.sparse,
            "bytes": cost.bytes.sparse,
            "training_bytes": cost.bytes.sparse + 4 * cost.weights.sparse + cost.optimizer_bytes.sparse,
        }

    def _config(self, seed: int, learning_rate: float, weight_decay: float, density: float, folder: str) -> Config:
        return make_config(
            self._model,
            self._dataset,
            {
                **COMMON,
                **MODELS[self._model],
                "epochs": self._options.epochs or COMMON["epochs"],
                "seed": seed,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "density": density,
                "checkpoint_dir": folder,
                "data_path": self._options.data_path,
            },
        )

    def _load(self) -> tuple:
        """New loaders, for these remember where they are; split by the first seed, whatever that of the run."""
        return load(self._config(SEEDS[0], 0.001, 0.0, 1.0, "saved"))

    def _dense_weights(self, seed: int) -> dict[str, torch.Tensor]:
        """The state of the dense model, trained with what its grid chose."""
        if seed not in self._dense:
            chosen = self._tune("dense", self._options.densities[0], self._options.seeds[0])
            with tempfile.TemporaryDirectory() as folder:
                config = self._config(seed, chosen.learning_rate, chosen.weight_decay, 1.0, folder)
                data = self._load()
                trainer = METHODS["dense"](Case(config, data, dict))
                trainer.fit(data[0], data[1], verbose=False, show_progress=False)
                trainer.evaluate(data[1])
            weights = sparse_weights(trainer.model)
            own = {f"{name}.{part}" for name in weights for part in ("values", "columns", "row_offsets")}
            self._dense[seed] = {
                **{name: t for name, t in trainer.model.state_dict().items() if name not in own},
                **{name: weight.dense().detach() for name, weight in weights.items()},
            }
        return self._dense[seed]


if __name__ == "__main__":
    main()
