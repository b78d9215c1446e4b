"""The page of a report: what it says, and in which order."""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from html import escape

from recbole_dsl.report.charts import MOST, short
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import (
    figures_of_rows,
    figures_of_topology,
    figures_of_training,
    figures_of_who_pays,
)
from recbole_dsl.report.markup import figure, grid, table, tile

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MARK = '<p class="faint">recbole-dsl report of '
# of a page, in which the mark is
_BEGIN = 2**16
_STYLE = os.path.join(os.path.dirname(__file__), "style.css")


def page_of(runs: Sequence[RunFacts]) -> str:
    """The whole page of ``runs``, the first of which it is about; it loads nothing and runs no script."""
    first = runs[0]
    title = f"{first.model} on {first.dataset}, density {first.density:g}"
    with open(_STYLE, encoding="utf-8") as file:
        style = file.read()
    sections = [
        _tiles(first),
        *_section("Result and cost", _result(runs)),
        *_section("Training", figures_of_training(runs)),
        *_section("Topology", figures_of_topology(runs)),
        *_section("Which rows hold the weights", figures_of_rows(runs)),
        *_section("Who pays", figures_of_who_pays(runs)),
        *_section("A training step", _step(runs)),
        *_section("Options and versions", _options(runs)),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            # whatever a file calls itself, the page neither loads nor runs anything
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
            f"{_MARK}{escape(', '.join(run.file for run in runs))}</p>",
            f"<h1>{escape(title)}</h1>",
            *sections,
            "</main></body></html>",
            "",
        ]
    )


def is_page(path: str) -> bool:
    """Whether the file at ``path`` is a page that `page_of` made."""
    with open(path, "rb") as file:
        begin = file.read(_BEGIN)
    return begin.startswith(b"<!doctype html>") and _MARK.encode() in begin


def _section(title: str, parts: Iterable[str]) -> list[str]:
    found = [part for part in parts if part]
    return [f"<h2>{escape(title)}</h2>", *found] if found else []


def _tiles(run: RunFacts) -> str:
    tiles = []
    data = run.data
    if data and data.hits:
        tiles.append(tile(f"{data.hits.all_ndcg:.4f}", "NDCG@10 on the test data"))
    for name, value in list(run.best_valid.items())[:1] if not tiles else []:
        tiles.append(tile(f"{value:.4f}", f"{name} on the validation data"))
    if data:
        tiles.append(tile(data.cost.weights.shown[2], "of the dense model's weights"))
        tiles.append(tile(data.cost.bytes.shown[2], "of its bytes, indices included"))
    if run.record.epoch:
        seconds = sum(run.record.train_seconds)
        tiles.append(tile(_duration(seconds), f"of training, {len(run.record.epoch)} epochs"))
    if run.updates:
        tiles.append(tile(str(len(run.updates)), "topology updates"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _result(runs: Sequence[RunFacts]) -> list[str]:
    metrics = list(dict.fromkeys(name for run in runs for name in run.best_valid))
    names = [run.name for run in runs]
    rows = []
    if any(run.data and run.data.hits for run in runs):
        hits = [run.data.hits if run.data else None for run in runs]
        rows.append(["test NDCG@10", *(f"{hit.all_ndcg:.4f}" if hit else "-" for hit in hits)])
        rows.append(["test Recall@10", *(f"{hit.all_recall:.4f}" if hit else "-" for hit in hits)])
    rows += [
        [f"valid {name}", *(f"{run.best_valid[name]:.4f}" if name in run.best_valid else "-" for run in runs)]
        for name in metrics
    ]
    rows.append(["best epoch", *(str(run.best_epoch) for run in runs)])
    parts = [
        figure(
            "Result",
            table(["metric", *names], rows),
            "The best epoch's, by the validation data. Higher is better.",
        )
    ]
    for run in runs:
        if run.data:
            cells = [[row.name, *row.shown] for row in run.data.cost.rows]
            words = (
                "Measured on the tensors that exist; the dense column is what the same model would take with "
                "dense weights. Weights and their indices take "
                f"{run.data.cost.bytes.shown[2]} of the dense model's bytes."
            )
            title = f"Cost: {run.name}" if len(runs) > 1 else "Cost, dense beside sparse"
            parts.append(figure(title, table(["", "dense", "sparse", "sparse / dense"], cells), words))
        else:
            parts.append(f"<p>{escape(run.name)}: no cost, test result or groups. {escape(run.without_data)}</p>")
    return grid(parts, "broad")


def _step(runs: Sequence[RunFacts]) -> list[str]:
    parts = []
    for run in runs:
        if not run.data:
            continue
        if not run.data.parts:
            parts.append(f"<p>{escape(run.name)}: {escape(run.data.lacks.get('parts', ''))}.</p>")
            continue
        times = vars(run.data.parts)
        total = sum(times.values())
        bars = "".join(_bar(name, ms / max(times.values()), f"{ms:.2f} ms") for name, ms in times.items())
        slowest = max(times, key=lambda name: times[name])
        words = (
            f"{total:.1f} ms a step; most of it is the {slowest} ({times[slowest] / total:.0%}). Measured when "
            "this page was made, on this machine, as medians of a few steps. Updates of the topology come on top."
        )
        parts.append(figure(f"Time: {run.name}" if len(runs) > 1 else "Time", bars, words))
        parts.append(_memory(run, len(runs) > 1))
    return grid(parts)


def _bar(label: str, share: float, text: str, style: str = "s0") -> str:
    bar = f'<i style="width:{100 * share:.2f}%"></i>'
    return f'<div class="bar {style}"><span>{escape(label)}</span>{bar}<span>{escape(text)}</span></div>'


def _memory(run: RunFacts, is_named: bool) -> str:
    cost = run.data.cost if run.data else None
    if cost is None:
        return ""
    known = {
        "weights, indices": cost.bytes,
        "optimizer": cost.optimizer_bytes,
        "growth": cost.growth_bytes,
    }
    largest = max(1, *(value for row in known.values() for value in (row.dense, row.sparse) if value))
    bars = []
    for name, row in known.items():
        for style, value in (("s0", row.sparse), ("s1", row.dense)):
            if value:
                label = name if style == "s0" or not row.sparse else ""
                bars.append(_bar(label, value / largest, f"{short(value)}B", style))
    words = (
        "The upper bar is the sparse model, the lower one the same model dense. Gradients take as much as the "
        "weights without their indices. Growth is what the sums of gradients take at most, before an update."
    )
    return figure(f"Memory: {run.name}" if is_named else "Memory", "".join(bars), words)


def _options(runs: Sequence[RunFacts]) -> list[str]:
    parts = []
    for run in runs:
        rows = [[name, str(value)] for name, value in sorted(run.changed.items())]
        rows += [[f"version of {name}", text] for name, text in run.record.versions.items() if run.record.epoch]
        title = f"<h3>{escape(run.name)}</h3>" if len(runs) > 1 else ""
        if run.command:
            parts.append(f"{title}<p>This trains it again:</p><pre>{escape(run.command)}</pre>")
        words = "<p>Every other option has its default.</p>" if run.command else ""
        parts.append(words + table(["option", "value"], rows, "words"))
    if len(runs) > MOST:
        parts.append(f"<p>The figures show the first {MOST} of {len(runs)} runs.</p>")
    return parts


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
