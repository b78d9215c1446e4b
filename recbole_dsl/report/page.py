"""The page of a report."""

import os
from collections.abc import Sequence
from datetime import timedelta

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from recbole_dsl.measure.cost import Cost
from recbole_dsl.report.charts import MOST, short
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import (
    Bar,
    Figure,
    figures_of_rows,
    figures_of_topology,
    figures_of_training,
    figures_of_who_pays,
)

_MARK = '<p class="faint">recbole-dsl report of '
# the part of a page in which the mark is
_BEGIN = 2**16
_FOLDER = os.path.dirname(__file__)


def page_of(runs: Sequence[RunFacts]) -> str:
    """The whole page of ``runs``, the first of which it is about."""
    first = runs[0]
    with open(os.path.join(_FOLDER, "style.css"), encoding="utf-8") as file:
        style = file.read()
    page = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True).get_template(
        "page.html"
    )
    return page.render(
        title=f"{first.model} on {first.dataset}, density {first.density:g}",
        style=Markup(style),
        mark=Markup(_MARK),
        files=", ".join(run.file for run in runs),
        tiles=_tiles(first),
        result=_result(runs),
        training=figures_of_training(runs),
        topology=figures_of_topology(runs),
        rows=figures_of_rows(runs),
        who_pays=figures_of_who_pays(runs),
        step=_step(runs),
        runs=runs,
        options=_options,
        most=MOST,
    )


def is_page(path: str) -> bool:
    """Whether the file at ``path`` is a page that `page_of` made."""
    with open(path, "rb") as file:
        begin = file.read(_BEGIN)
    return begin.startswith(b"<!doctype html>") and _MARK.encode() in begin


def _tiles(run: RunFacts) -> list[tuple[str, str]]:
    """The numbers at the top of the page, each with its meaning."""
    tiles = []
    data = run.data
    if data and data.hits:
        tiles.append((f"{data.hits.all_ndcg:.4f}", "NDCG@10 on the test data"))
    for name, value in list(run.best_valid.items())[:1] if not tiles else []:
        tiles.append((f"{value:.4f}", f"{name} on the validation data"))
    if data:
        tiles.append((data.cost.weights.shown[2], "of the dense model's weights"))
        tiles.append((data.cost.bytes.shown[2], "of its bytes, indices included"))
    if run.record.epoch:
        seconds = sum(run.record.train_seconds)
        tiles.append((_duration(seconds), f"of training, {len(run.record.epoch)} epochs"))
    if run.updates:
        tiles.append((str(len(run.updates)), "topology updates"))
    return tiles


def _result(runs: Sequence[RunFacts]) -> list[Figure | str]:
    metrics = dict.fromkeys(name for run in runs for name in run.best_valid)
    hits = [run.data.hits if run.data else None for run in runs]
    rows = []
    if any(hits):
        rows.append(["test NDCG@10", *(f"{hit.all_ndcg:.4f}" if hit else "-" for hit in hits)])
        rows.append(["test Recall@10", *(f"{hit.all_recall:.4f}" if hit else "-" for hit in hits)])
    rows += [
        [f"valid {name}", *(f"{run.best_valid[name]:.4f}" if name in run.best_valid else "-" for run in runs)]
        for name in metrics
    ]
    rows.append(["best epoch", *(str(run.best_epoch) for run in runs)])
    words = "The best epoch's, by the validation data. Higher is better."
    parts: list[Figure | str] = [Figure("Result", words, head=["metric", *(run.name for run in runs)], rows=rows)]
    for run in runs:
        if not run.data:
            parts.append(f"{run.name}: no cost, test result or groups. {run.without_data}")
            continue
        words = (
            "Measured on the tensors that exist; the dense column is what the same model would take with dense "
            f"weights. Weights and their indices take {run.data.cost.bytes.shown[2]} of the dense model's bytes."
        )
        title = f"Cost: {run.name}" if len(runs) > 1 else "Cost, dense beside sparse"
        cells = [[row.name, *row.shown] for row in run.data.cost.rows]
        parts.append(Figure(title, words, head=["", "dense", "sparse", "sparse / dense"], rows=cells))
    return parts


def _step(runs: Sequence[RunFacts]) -> list[Figure | str]:
    parts: list[Figure | str] = []
    for run in runs:
        if not run.data:
            continue
        if not run.data.parts:
            parts.append(f"{run.name}: {run.data.lacks.get('parts', '')}.")
            continue
        times = vars(run.data.parts)
        slowest = max(times, key=lambda name: times[name])
        words = (
            f"{sum(times.values()):.1f} ms a step; most of it is the {slowest} "
            f"({times[slowest] / sum(times.values()):.0%}). Measured when this page was made, on this machine, as "
            "medians of a few steps. Updates of the topology come on top."
        )
        bars = [Bar(name, ms / times[slowest], f"{ms:.2f} ms") for name, ms in times.items()]
        of_run = f": {run.name}" if len(runs) > 1 else ""
        parts += [Figure(f"Time{of_run}", words, bars=bars), _memory(run.data.cost, f"Memory{of_run}")]
    return parts


def _memory(cost: Cost, title: str) -> Figure:
    known = {
        "weights, indices": cost.bytes,
        "optimizer": cost.optimizer_bytes,
        "growth": cost.growth_bytes,
    }
    largest = max(1, *(value for row in known.values() for value in (row.dense, row.sparse) if value))
    bars = [
        Bar(name if colour == 0 or not row.sparse else "", value / largest, f"{short(value)}B", colour)
        for name, row in known.items()
        for colour, value in enumerate((row.sparse, row.dense))
        if value
    ]
    words = (
        "The upper bar is the sparse model, the lower one the same model dense. Gradients take as much as the "
        "weights without their indices. Growth is what the sums of gradients take at most, before an update."
    )
    return Figure(title, words, bars=bars)


def _options(run: RunFacts) -> list[list[str]]:
    rows = [[name, str(value)] for name, value in sorted(run.changed.items())]
    return rows + [[f"version of {name}", text] for name, text in run.record.versions.items() if run.record.epoch]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
