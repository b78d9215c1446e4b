"""What the datasets of benchmarks.quality are like, and how the recipe does against that: a table and a figure.

    python -m benchmarks.quality_by_data --data_path dataset

writes results/datasets.jsonl, of which `python -m benchmarks.quality --tables` makes them.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.figures import OURS, RIVAL, figure_in, plain_ticks
from benchmarks.quality_lines import Line
from benchmarks.quality_runs import SEEDS, load_data
from benchmarks.report import markdown_table, parse
from recbole_dsl.initialisation.factors import Factors
from recbole_dsl.initialisation.held_out import best_factors

FACTS = Path(__file__).parent.parent / "results" / "datasets.jsonl"
DATASETS = (
    "ml-1m",
    "ml-100k",
    "lastfm",
    "ml-1m-thin-15",
    "ml-1m-thin-8",
    "ml-1m-thin-6",
    "beauty",
    "beauty-thin-6",
    "groups-500",
    "groups-2000",
)
_DENSITY = 0.1
_COLUMNS = 64
_TICKS = 2, 5, 10, 20, 50, 100
# behind the names, so that no line runs through them
_CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write results/datasets.jsonl."""
    parser = argparse.ArgumentParser(prog="benchmarks.quality_by_data", description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS))
    parser.add_argument("--facts", type=Path, default=FACTS, help="the file to write")
    options = parse(parser, arguments)
    found = [_facts(name, options.data_path) for name in options.datasets]
    options.facts.write_text("".join(f"{json.dumps(facts)}\n" for facts in found))


def read_facts(path: Path = FACTS) -> dict[str, Mapping[str, Any]]:
    """What is known of each dataset, by its name, in the order of the file."""
    return {facts["dataset"]: facts for facts in map(json.loads, path.read_text().splitlines())}


def table(lines: Iterable[Line], facts: Mapping[str, Mapping[str, Any]]) -> str:
    """BPR at density 0.1 against the history of a user and the factors that stand out, of `chosen_lines`."""
    figures = _figures(lines)
    rows = [
        [
            name,
            f"{of['users']:,}",
            f"{of['items']:,}",
            f"{of['each']:.1f}",
            str(of["standing_out"]),
            f"{of['damping']:.2f}",
            str(of["steps"]),
            *(f"{value:.0%}" for value in figures[name]),
        ]
        for name, of in facts.items()
        if name in figures
    ]
    head = ["BPR, density 0.1", "users", "items", "training interactions a user", "factors that stand out, of 64"]
    head += ["damping", "steps of spreading", "ours / dense", "ours / small dense, equal deployed bytes"]
    figure = "\n![NDCG@10 of ours, of dense and of small dense](quality_by_data.svg)\n"
    return "\n### When the recipe turns\n\n" + markdown_table(head, rows) + figure


def draw(lines: Iterable[Line], facts: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The figure of `table`, as SVG."""
    figures = _figures(lines)
    names = [name for name in facts if name in figures]
    labels = {"each": "training interactions a user", "standing_out": "factors that stand out, of 64"}
    sides = ("of dense", "o", OURS), ("of small dense at equal bytes", "^", RIVAL)
    with figure_in(path, 2, figsize=(9.5, 4.6), sharey=True) as (_, axes):
        for axis, (key, label) in zip(axes, labels.items()):
            places = [facts[name][key] for name in names]
            for which, (side, mark, colour) in enumerate(sides):
                heights = [100 * figures[name][which] for name in names]
                axis.scatter(places, heights, marker=mark, s=28, color=colour, label=side, zorder=3)
            axis.vlines(
                places, *zip(*([100 * v for v in figures[name]] for name in names)), "#bdbdbd", linewidth=1
            )
            for name, place in zip(names, places):
                # the lower one of two neighbours has its name below it, turned away from the other
                others = [other for other in names if other != name]
                near = min(others, key=lambda other: abs(np.log(facts[other][key] / place)))
                aside = "right" if facts[near][key] > place else "left"
                is_above = max(figures[name]) >= max(figures[near])
                end, away, align = (max, 6, "center") if is_above else (min, -12, aside)
                spot = place, 100 * end(figures[name])
                axis.annotate(name, spot, (0, away), textcoords="offset points", fontsize=7, ha=align, bbox=_CLEAR)
            axis.axhline(100, color="grey", linewidth=0.8)
            axis.set(xscale="log", yscale="log", xlabel=label, xlim=(1.2, 170), ylim=(45, 450))
            plain_ticks(axis.xaxis, _TICKS)
            plain_ticks(axis.yaxis, [50, 100, 150, 200, 300])
        axes[0].set_ylabel("NDCG@10 of ours, %, BPR at density 0.1")
        axes[1].legend(fontsize=8, loc="lower left")


def _figures(lines: Iterable[Line]) -> dict[str, tuple[float, float]]:
    """Of each dataset that has both: the share of dense, and that of the small dense model of equal bytes."""
    cells: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if line["model"] == "BPR" and line["density"] == (1.0 if line["method"] == "dense" else _DENSITY):
            cells.setdefault((line["dataset"], line["method"]), []).append(line["test_ndcg"])
    ours = {name: mean(of) for (name, method), of in cells.items() if method == "ours"}
    rivals = {
        name: [mean(cells[name, method]) for method in ("dense", "small_deployed") if (name, method) in cells]
        for name in ours
    }
    return {name: (ours[name] / of[0], ours[name] / of[1]) for name, of in rivals.items() if len(of) == 2}


def _facts(name: str, data_path: str) -> dict[str, Any]:
    train_data = load_data("BPR", name, data_path)[0]._dataset
    interactions = train_data.inter_matrix("csr")
    factors = Factors(interactions, _COLUMNS, SEEDS[0])
    best = best_factors(interactions, _COLUMNS, (_DENSITY, _DENSITY), SEEDS[0])
    return {
        "dataset": name,
        "users": train_data.user_num - 1,
        "items": train_data.item_num - 1,
        "each": round(interactions.nnz / int(np.count_nonzero(np.diff(interactions.indptr))), 1),
        "standing_out": factors.n_standing_out,
        "damping": best.damping,
        "steps": best.steps,
    }


if __name__ == "__main__":
    main()
