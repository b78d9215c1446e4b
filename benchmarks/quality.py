"""Quality at a budget: model x dataset x density x method x seed, a line of JSON each, and tables from the lines.

    python -m benchmarks.quality --threads 1 --models BPR --datasets ml-100k --data_path dataset
    python -m benchmarks.quality --tables

The first trains what is not yet in results/quality.jsonl; it may be killed and started again, and several may run
side by side on different models or datasets. The second writes from the lines the tables of results/quality.md and
of docs/results.md, the README's figure, and the files of properties/ with what was chosen for our recipe.

For each method the weight decay and then the learning rate are chosen from one grid, on the validation data at
density 0.1: with the first seed, then of the two best by the mean of all seeds. Other densities use the choice.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from recbole.trainer import Trainer

from benchmarks import fake_quantisation, quality_by_data, quality_figure, quantised
from benchmarks.joint_codes import code_bytes
from benchmarks.long_tails import is_made
from benchmarks.quality_by_data import read_facts
from benchmarks.quality_lines import Line, Run, append_line, best_first, best_settings, chosen_lines, read_lines
from benchmarks.quality_methods import ALL_METHODS, METHODS_OF, USUAL_METHODS
from benchmarks.quality_runs import MODELS, SEEDS, SEQUENTIAL, dense_state, options_of, train
from benchmarks.quality_tables import summary, tables, write_page
from benchmarks.report import parse

_ROOT = Path(__file__).parent.parent
_LINES = _ROOT / "results" / "quality.jsonl"
_ABOUT = """#
# Learning rate and weight decay are those that benchmarks.quality chose on the validation data for our recipe, the
# default of every option of ours. Written by python -m benchmarks.quality --tables.
"""
_ABOUT_RATINGS = """\
# An .inter file with ratings may hold some that are no sign of liking: for ml-1m as RecBole downloads it, load the
# rating as well and add val_interval: {rating: "[3,inf)"}.
"""
DENSITIES = 0.1, 0.2, 0.05, 0.5
WEIGHT_DECAYS = 5e-6, 1e-6, 2e-5
# it has a regulariser of its own
MORE_WEIGHT_DECAYS = {"LightGCN": (0.0,)}
# rows of features meet in each batch, and overfit sooner
WEIGHT_DECAYS_OF = dict.fromkeys(METHODS_OF, (5e-5, 1e-5))
# of the model's own learning rate
FACTORS = 1.0, 0.5, 2.0
# whose quality is drawn against bytes
FRONTIERS = ("BPR", "ml-1m"), ("LightGCN", "ml-1m"), ("SASRec", "beauty"), ("DeepFM", "ml-100k")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, or write the tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description=__doc__.splitlines()[0])
    # lastfm has no times, and no features
    usual = [model for model in MODELS if model not in METHODS_OF and model not in SEQUENTIAL]
    parser.add_argument("--models", nargs="+", choices=MODELS, default=usual)
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "ml-1m", "lastfm"])
    parser.add_argument("--methods", nargs="+", choices=ALL_METHODS)
    parser.add_argument("--densities", nargs="+", type=float, default=DENSITIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--weight_decays", nargs="+", type=float, help="those of the grid")
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS, help="learning rates / the model's")
    parser.add_argument("--epochs", type=int, help="fewer than 200, for a trial")
    parser.add_argument("--lines", type=Path, default=_LINES, help="the file of results")
    parser.add_argument("--tables", action="store_true", help="write the tables, train nothing")
    options = parse(parser, arguments)
    if not options.tables:
        for model in options.models:
            for dataset in options.datasets:
                _Cell(model, dataset, options).train_missing()
    lines = chosen_lines(read_lines(options.lines))
    facts = read_facts()
    page = tables(lines) + quality_by_data.table(lines, facts) + quantised.table(read_lines(quantised.LINES))
    page += quantised.table_of_methods(lines)
    for model, dataset in FRONTIERS:
        page += f"\n![Quality of {model} on {dataset} against bytes](frontier-{model}-{dataset}.svg)\n"
    write_page(options.lines.with_suffix(".md"), page)
    if options.lines == _LINES:
        quality_by_data.draw(lines, facts, _LINES.with_name("quality_by_data.svg"))
        write_page(_ROOT / "docs" / "results.md", summary(lines))
        quality_figure.draw(lines, _LINES.with_name("quality_at_a_tenth.svg"))
        for pair in FRONTIERS:
            frontier = _LINES.with_name(f"frontier-{'-'.join(pair)}.svg")
            quality_figure.draw_frontier(lines, read_lines(quantised.LINES), pair, frontier)
        _write_properties(lines)


def _write_properties(lines: list[Line]) -> None:
    """properties/<model>-<dataset>.yaml, with what the grid chose for our recipe."""
    for line in lines:
        is_ours = (line["method"], line["density"], line["seed"]) == ("ours", DENSITIES[0], SEEDS[0])
        if not is_ours or is_made(line["dataset"]):
            continue
        name = f"{line['model']}-{line['dataset']}"
        tuned = {key: line[key] for key in ("learning_rate", "weight_decay", "density")}
        command = f"python run_recbole_dsl.py --model={line['model']} --dataset={line['dataset']}"
        options = {**options_of(line["model"], line["dataset"]), **tuned}
        about = _ABOUT + ("" if "threshold" in options else _ABOUT_RATINGS)
        head = f"# {command} --config_files=properties/{name}.yaml\n{about}\n"
        body = yaml.safe_dump(options, sort_keys=False, default_flow_style=None)
        (_ROOT / "properties" / f"{name}.yaml").write_text(head + body)


def _metrics(valid: Mapping[str, float], test: Mapping[str, float]) -> dict[str, float]:
    if "auc" in valid:
        return {"valid_auc": valid["auc"], "test_auc": test["auc"], "test_logloss": test["logloss"]}
    return {"valid_ndcg": valid["ndcg@10"], "test_ndcg": test["ndcg@10"], "test_recall": test["recall@10"]}


class _Cell:
    """The runs of one model on one dataset."""

    def __init__(self, model: str, dataset: str, options: argparse.Namespace):
        self._model, self._dataset, self._options = model, dataset, options
        self._methods = options.methods or METHODS_OF.get(model, USUAL_METHODS)
        self._dense: dict[int, dict[str, torch.Tensor]] = {}

    def train_missing(self) -> None:
        """What chooses the learning rate and the weight decay, at the first density; then the other densities."""
        densities = self._options.densities
        chosen = {method: self._tune(method) for method in self._methods}
        for seed in self._options.seeds:
            for density in densities:
                for method, run in chosen.items():
                    if method != "dense":
                        self._line(run.with_(seed=seed, density=density))
                    elif density == densities[0]:
                        self._line(run.with_(seed=seed))

    def _tune(self, method: str) -> Run:
        first_seed, *more_seeds = self._options.seeds
        own = options_of(self._model, self._dataset)
        base = own["learning_rate"]
        density = 1.0 if method == "dense" else self._options.densities[0]
        epochs = self._options.epochs or own["epochs"]
        usual = WEIGHT_DECAYS_OF.get(self._model, (*WEIGHT_DECAYS, *MORE_WEIGHT_DECAYS.get(self._model, ())))
        decays = self._options.weight_decays or usual
        rates = [round(base * factor, 8) for factor in self._options.factors]
        start = Run(self._model, self._dataset, method, density, first_seed, rates[0], decays[0], epochs)
        tried = [self._line(start.with_(weight_decay=decay)) for decay in decays]
        best = best_first(tried)[0]
        tried += [self._line(best.with_(learning_rate=rate)) for rate in rates]
        tried += [self._line(run.with_(seed=seed)) for run in best_first(tried)[:2] for seed in more_seeds]
        return start.with_(**best_settings(tried))

    def _line(self, run: Run) -> Line:
        """The line of ``run``, trained if it is not in the file yet."""
        found = [line for line in read_lines(self._options.lines) if Run.of(line) == run]
        if found:
            return found[0]
        start = perf_counter()
        trainer, (_, valid_data, test_data) = train(run, self._options.data_path, self._dense_weights)
        valid, test = (trainer.evaluate(data, load_best_model=False) for data in (valid_data, test_data))
        cost, codes = trainer.cost, code_bytes(trainer.model)
        line = {
            **asdict(run),
            **_metrics(valid, test),
            "best_epoch": len(trainer.train_loss_dict) - 1 - trainer.cur_step * trainer.eval_step,
            "weights": cost.weights.sparse,
            # where items have codes, all tensors are dense and need no index
            "bytes": 4 * cost.weights.sparse + codes if codes else cost.bytes.sparse,
            "training_bytes": cost.bytes.sparse + 4 * cost.weights.sparse + cost.optimizer_bytes.sparse,
            "seconds": round(perf_counter() - start, 1),
            **{values: self._quantised(trainer, test_data, values) for values in ("int8", "int4")},
        }
        append_line(self._options.lines, line)
        print(json.dumps(line), flush=True)
        return line

    def _quantised(self, trainer: Trainer, test_data: Any, values: str) -> dict[str, float]:
        """The bytes of the model and its test score if its weights are written as ``values``."""
        with fake_quantisation.quantised(trainer, values) as (n_bytes, _):
            test = trainer.evaluate(test_data, load_best_model=False)
        name = "auc" if "auc" in test else "ndcg@10"
        return {"bytes": n_bytes + code_bytes(trainer.model), name.removesuffix("@10"): test[name]}

    def _dense_weights(self, seed: int) -> dict[str, torch.Tensor]:
        """The state of the dense model, trained with what its grid chose."""
        if seed not in self._dense:
            chosen = self._tune("dense").with_(seed=seed)
            self._dense[seed] = dense_state(train(chosen, self._options.data_path)[0].model)
        return self._dense[seed]


if __name__ == "__main__":
    main()
