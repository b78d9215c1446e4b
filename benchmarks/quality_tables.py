"""The tables of results/quality.md, made from the lines of results/quality.jsonl."""

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from benchmarks.quality_lines import Line, chosen_lines

METHOD_NAMES = {
    "dense": "dense",
    "small_deployed": "small dense, equal deployed bytes",
    "small_trained": "small dense, equal training bytes",
    "fixed_random": "random topology, fixed",
    "published": "DSL as published",
    "pruned_at_once": "dense, pruned at once, fine-tuned",
    "pruned_gradually": "dense, pruned gradually, fine-tuned",
    "sparserec": "SparseRec's recipe",
    "ours": "**ours**",
    "small_deployed_svd": "*small dense, equal deployed bytes, with our start*",
}
_BEGIN, _END = "<!-- tables -->\n", "<!-- end of tables -->\n"


def write_page(lines: Iterable[Line], path: Path) -> None:
    """Write the tables into ``path``, between its two marks; the text around them stays as it is."""
    before, _, rest = path.read_text().partition(_BEGIN) if path.exists() else ("", "", "")
    after = rest.partition(_END)[2]
    path.write_text(before + _BEGIN + tables(chosen_lines(lines)) + _END + after)


def tables(lines: list[Line]) -> str:
    """A table for each model and dataset, of lines that were `chosen_lines`."""
    pairs = sorted({(line["model"], line["dataset"]) for line in lines})
    return "".join(
        _table(model, dataset, [line for line in lines if (line["model"], line["dataset"]) == (model, dataset)])
        for model, dataset in pairs
    )


def _table(model: str, dataset: str, lines: list[Line]) -> str:
    cells: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        cells.setdefault((line["method"], line["density"]), []).append(line)
    if all(line["method"] == "dense" for line in lines):
        return ""
    densities = sorted({density for method, density in cells if method != "dense"}, reverse=True)
    seeds = len({line["seed"] for line in lines})
    dense = [line["test_ndcg"] for line in cells.get(("dense", 1.0), ())]
    rows = [
        f"\n### {model}, {dataset}\n\n",
        f"Test NDCG@10, {'mean ± standard deviation of ' + str(seeds) + ' seeds' if seeds > 1 else 'one seed'}, ",
        "in brackets the share of dense.\n\n",
        f"| density | {' | '.join(map(str, densities))} | learning rate, weight decay |\n",
        f"| --- |{' ---: |' * (len(densities) + 1)}\n",
    ]
    for method, name in METHOD_NAMES.items():
        found = [cells.get((method, 1.0 if method == "dense" else density), []) for density in densities]
        if any(found):
            some = next(filter(None, found))[0]
            settings = f"{some['learning_rate']:g}, {some['weight_decay']:g}"
            rows.append(f"| {name} | {' | '.join(_cell(of, dense) for of in found)} | {settings} |\n")
    return "".join(rows)


def _cell(lines: list[Line], dense: list[float]) -> str:
    if not lines:
        return ""
    values = [line["test_ndcg"] for line in lines]
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    share = f" ({mean(values) / mean(dense):.0%})" if dense else ""
    return f"{mean(values):.4f}{spread}{share}"
