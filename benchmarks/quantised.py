"""Quality at equal quantised bytes: our sparse tables beside narrow dense ones, in int8 and in int4.

    python -m benchmarks.quantised --threads 1 --data_path dataset

trains what is not yet in results/quantised.jsonl; `python -m benchmarks.quality --tables` makes the table of it.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.fake_quantisation import quantised, train_for
from benchmarks.quality_lines import Line, append_line, read_lines, stored
from benchmarks.quality_methods import Case
from benchmarks.quality_runs import SEEDS, options_of
from benchmarks.quality_tables import FOR_INT4_NAMES, METHOD_NAMES
from benchmarks.report import markdown_table, mean_of_seeds, parse
from benchmarks.sides import load, make_config
from recbole_dsl import DSLTrainer

LINES = Path(__file__).parent.parent / "results" / "quantised.jsonl"


@dataclass(frozen=True)
class Side:
    """What is trained, and how its values are written.

    Attributes:
        is_started: whether a dense model starts from our factorisation, as sparse ones do.
        is_trained_for: whether it is trained with its values as they are written.
    """

    columns: int
    density: float
    is_started: bool
    values: str
    is_trained_for: bool = False


SIDES = {
    "**ours**, int8": Side(64, 0.113, True, "int8"),
    "**ours**, int4": Side(64, 0.158, True, "int4"),
    "**ours**, trained for int4": Side(64, 0.158, True, "int4", is_trained_for=True),
    "ours, density 0.1, int8": Side(64, 0.1, True, "int8"),
    "ours, density 0.1, int4": Side(64, 0.1, True, "int4"),
    "narrow dense, int8": Side(12, 1.0, False, "int8"),
    "narrow dense, int4": Side(22, 1.0, False, "int4"),
    "narrow dense, trained for int4": Side(22, 1.0, False, "int4", is_trained_for=True),
    "narrow dense with our start, int8": Side(12, 1.0, True, "int8"),
    "narrow dense with our start, int4": Side(22, 1.0, True, "int4"),
    "narrow dense with our start, trained for int4": Side(22, 1.0, True, "int4", is_trained_for=True),
}
_NAMES = METHOD_NAMES | FOR_INT4_NAMES
_VALUES = "float32", "int8", "int4"
# learning rate and weight decay that the grid of benchmarks.quality chose for ours, for the narrow dense model and
# for the narrow dense model with our start
SETTINGS = {
    "ml-100k": ((0.002, 5e-6), (0.002, 2e-5), (0.004, 5e-6)),
    "ml-1m": ((0.001, 1e-6), (0.002, 5e-6), (0.002, 5e-6)),
    "lastfm": ((0.002, 1e-6), (0.004, 2e-5), (0.001, 1e-6)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(prog="benchmarks.quantised", description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--lines", type=Path, default=LINES, help="the file of results")
    options = parse(parser, arguments)
    done = {(line["dataset"], line["side"], line["seed"]) for line in read_lines(options.lines)}
    for run in product(options.datasets, options.sides, options.seeds):
        if run not in done:
            append_line(options.lines, _line(*run, options))


def table(lines: Iterable[Line]) -> str:
    """Test NDCG@10 before and after quantisation, and the bytes of a row."""
    cells: dict[tuple[str, str], list[Line]] = {cell: [] for cell in product(SETTINGS, SIDES)}
    for line in lines:
        cells[line["dataset"], line["side"]].append(line)
    scores = "fp32", "quantised"
    rows = [
        [
            dataset,
            side,
            f"{of[0]['columns']}",
            f"{of[0]['row_bytes']:.1f}",
            *(mean_of_seeds([x[k] for x in of]) for k in scores),
        ]
        for (dataset, side), of in cells.items()
        if of
    ]
    head = ["dataset", "BPR, test NDCG@10", "columns", "bytes a row, index included", *scores]
    return "\n### At equal quantised bytes\n\n" + markdown_table(head, rows)


def table_of_methods(lines: Iterable[Line]) -> str:
    """Test scores and kB of `benchmarks.quality` in float32 and quantised, of lines that were `chosen_lines`."""
    cells: dict[tuple[str, str, float], list[Line]] = {}
    for line in sorted(lines, key=lambda line: (line["model"], line["dataset"], line["method"], -line["density"])):
        if "int8" in line and line["method"] in _NAMES:
            pair = f"{line['model']}, {line['dataset']}"
            cells.setdefault((pair, line["method"], line["density"]), []).append(line)
    rows = []
    for (pair, method, density), of in cells.items():
        found = [zip(*(stored(line, values) for line in of)) for values in _VALUES]
        scores = [f"{mean_of_seeds(values)} ({mean(n_bytes) / 1e3:,.0f})" for n_bytes, values in found]
        rows.append([pair, _NAMES[method], f"{density:g}", *scores])
    head = ["model, dataset", "method", "density", *_VALUES]
    words = "The test score, the mean ± standard deviation where there are several seeds; in brackets kB."
    return f"\n### Quantised\n\n{words}\n\n" + markdown_table(head, rows)


def _line(dataset: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    side = SIDES[name]
    ours, narrow, narrow_started = SETTINGS[dataset]
    learning_rate, weight_decay = ours if side.density < 1 else narrow_started if side.is_started else narrow
    with tempfile.TemporaryDirectory() as folder:
        own = {"learning_rate": learning_rate, "weight_decay": weight_decay, "epochs": options.epochs}
        own |= {"checkpoint_dir": folder, "data_path": options.data_path}
        own |= {"embedding_size": side.columns, "density": side.density}

        def config(seed: int) -> Any:
            return make_config("BPR", dataset, {**options_of("BPR", dataset), **own, "seed": seed})

        data = load(config(SEEDS[0]))
        case = Case(config(seed), data, dict)
        trainer = DSLTrainer(case.config, case.model(side.density))
        for weight in trainer.sparsity.weights.values():
            weight.awaits_data = side.is_started
        if side.is_trained_for:
            train_for(trainer, side.values)
        trainer.fit(data[0], data[1], verbose=False, show_progress=False)
        before = trainer.evaluate(data[2])["ndcg@10"]
        with quantised(trainer, side.values) as (n_bytes, n_rows):
            after = trainer.evaluate(data[2], load_best_model=False)["ndcg@10"]
    return {
        "dataset": dataset,
        "side": name,
        "seed": seed,
        "columns": side.columns,
        "row_bytes": n_bytes / n_rows,
        "fp32": before,
        "quantised": after,
    }


if __name__ == "__main__":
    main()
