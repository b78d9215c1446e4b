"""Who gains and loses with a small model: quality by user activity and item popularity, and the widths of rows.

    python -m benchmarks.who_pays --threads 1 --model BPR --dataset ml-1m --data_path dataset

Trains the methods with what benchmarks.quality chose for them, and writes results/who_pays-BPR-ml-1m.md and .svg.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from recbole.trainer import Trainer

from benchmarks.figures import OURS, figure_in, plain_ticks
from benchmarks.quality_lines import Run, chosen_lines, read_lines
from benchmarks.quality_runs import SEEDS, train
from benchmarks.quality_tables import METHOD_NAMES
from benchmarks.report import markdown_table, parse
from recbole_dsl import sparse_weights
from recbole_dsl.report.groups import GROUPS, Groups, Hits

_ROOT = Path(__file__).parent.parent
# of an axis of interactions
_TICKS = [m * 10**power for power in range(7) for m in (1, 3)]
_METHODS = "dense", "small_deployed", "published", "ours"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write ``who_pays-<model>-<dataset>.md`` and ``.svg`` beside the lines."""
    parser = argparse.ArgumentParser(prog="benchmarks.who_pays", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="BPR")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument(
        "--methods", nargs="+", choices=_METHODS, default=_METHODS, help="of which ours is always one"
    )
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=200, help="those of the lines")
    parser.add_argument("--lines", type=Path, default=_ROOT / "results" / "quality.jsonl")
    options = parse(parser, arguments)
    runs = _chosen(options)
    trained = {method: train(run, options.data_path) for method, run in runs.items()}
    some_data = next(iter(trained.values()))[1]
    groups = Groups.of(some_data[0]._dataset)
    hits = [
        {method: Hits.of(trainer.model, data[part]) for method, (trainer, data) in trained.items()}
        for part in (2, 1)
    ]
    path = options.lines.parent / f"who_pays-{options.model}-{options.dataset}"
    widths = _widths(trained["ours"][0], groups)
    path.with_suffix(".md").write_text(_page(options, groups, *hits, widths, path.with_suffix(".svg").name))
    _draw(trained["ours"][0], groups, path.with_suffix(".svg"))


def _chosen(options: argparse.Namespace) -> dict[str, Run]:
    wanted_methods = [method for method in _METHODS if method in {*options.methods, "ours"}]
    runs = {}
    for line in chosen_lines(read_lines(options.lines)):
        run = Run.of(line)
        density = 1.0 if run.method == "dense" else options.density
        wanted = options.model, options.dataset, density, SEEDS[0], options.epochs
        if (run.model, run.dataset, run.density, run.seed, run.epochs) == wanted and run.method in wanted_methods:
            runs[run.method] = run
    missing = [method for method in wanted_methods if method not in runs]
    if missing:
        raise SystemExit(f"lines={options.lines}: must have {', '.join(missing)} of {options.model}")
    return {method: runs[method] for method in wanted_methods}


def _widths(trainer: Trainer, groups: Groups) -> dict[str, list[float]]:
    return {side: [float(widths[g].mean()) for g in groups.members[side]] for side, widths in _rows(trainer)}


def _rows(trainer: Trainer) -> list[tuple[str, np.ndarray]]:
    """Alive weights of each row of the tables of users, if there is one, and of items."""
    weights = sparse_weights(trainer.model)
    tables = {side: weights.get(f"{side}_embedding.weight") for side in ("user", "item")}
    return [(side, table.row_offsets.long().diff().numpy()) for side, table in tables.items() if table is not None]


def _page(
    options: argparse.Namespace,
    groups: Groups,
    hits: Mapping[str, Hits],
    valid_hits: Mapping[str, Hits],
    widths: Mapping[str, list[float]],
    figure: str,
) -> str:
    users = groups.members["user"]
    sections = [
        f"# Groups of users and items: {options.model}, {options.dataset}, density {options.density}\n",
        f"    {options.command}\n",
        "Test data unless another is named, seed 2020. Users are in five equal-sized groups, by their number of "
        "training interactions. Items are in five groups with equal numbers of interactions, by their "
        "popularity. The rarest come first.\n",
        "## Users: NDCG@10 (Recall@10)\n",
        markdown_table(
            ["training interactions", *groups.ranges("user")],
            [
                [METHOD_NAMES[m], *("{1:.4f} ({0:.4f})".format(*hit.of_users(g)) for g in users)]
                for m, hit in hits.items()
            ],
        ),
        "## Items: share of their test interactions that are found\n",
        _of_items(groups, hits),
        "## Items: share of their validation interactions that are found\n",
        _of_items(groups, valid_hits),
        "## Alive weights of a row, of ours\n",
        markdown_table(
            ["group", *(str(i + 1) for i in range(GROUPS))],
            [[f"{side}s", *(f"{w:.1f}" for w in of_groups)] for side, of_groups in widths.items()],
        ),
        f"![Alive weights of a row against its number of training interactions]({figure})\n",
    ]
    return "\n".join(sections)


def _of_items(groups: Groups, hits: Mapping[str, Hits]) -> str:
    items = groups.members["item"]
    held = next(iter(hits.values())).items
    return markdown_table(
        ["training interactions", *groups.ranges("item")],
        [
            ["items", *(str(len(g)) for g in items)],
            ["share of the interactions", *(f"{np.isin(held, g).mean():.0%}" for g in items)],
            *([METHOD_NAMES[m], *(f"{hit.of_items(g):.4f}" for g in items)] for m, hit in hits.items()),
        ],
    )


def _draw(trainer: Trainer, groups: Groups, path: Path) -> None:
    rows = _rows(trainer)
    with figure_in(path, len(rows), figsize=(4.5 * len(rows), 3.4), sharey=True) as (_, axes):
        axes = np.atleast_1d(axes)
        for axis, (side, widths) in zip(axes, rows):
            counts = groups.counts[side]
            axis.scatter(
                counts[1:] + 1,
                widths[1:],
                s=6,
                alpha=0.3,
                linewidths=0,
                color=OURS,
                rasterized=True,
                label="a row",
            )
            bins = np.unique(np.quantile(counts[1:], np.linspace(0, 1, 16)))
            place = np.clip(np.digitize(counts[1:], bins) - 1, 0, max(0, len(bins) - 2))
            filled = [b for b in range(len(bins)) if (place == b).any()]
            centres = [np.exp(np.log(counts[1:][place == b] + 1).mean()) for b in filled]
            axis.plot(centres, [widths[1:][place == b].mean() for b in filled], color="black", label="mean")
            axis.set(xscale="log", xlabel=f"1 + training interactions of the {side}", title=f"{side}s")
            low, high = axis.get_xlim()
            plain_ticks(axis.xaxis, [value for value in _TICKS if low <= value <= high])
        axes[0].set_ylabel("alive weights of a row")
        axes[0].legend()


if __name__ == "__main__":
    main()
