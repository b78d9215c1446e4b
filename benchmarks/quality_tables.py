"""The tables of results/quality.md and of docs/results.md, made from the lines of results/quality.jsonl."""

from pathlib import Path
from statistics import mean

from benchmarks.quality_lines import Line, score
from benchmarks.report import markdown_table, mean_of_seeds

METHOD_NAMES = {
    "dense": "dense",
    "small_deployed": "small dense, equal deployed bytes",
    "small_trained": "small dense, equal training bytes",
    "fixed_random": "random topology, fixed",
    "published": "DSL as published",
    "pruned_at_once": "dense, pruned at once, fine-tuned",
    "pruned_gradually": "dense, pruned gradually, fine-tuned",
    "sparserec": "SparseRec's recipe",
    "quotient_remainder": "quotient-remainder hashing, equal deployed bytes",
    "deep_hash": "rows made of hashes (DHE), equal deployed bytes",
    "recjpq": "product quantisation with SVD codes (RecJPQ), about equal deployed bytes",
    "ours": "**ours**",
    "ours_wide": "**ours**, tables twice as wide, as many weights",
    "ours_tenth": "ours, `update_ratio=0.1`",
    "ours_tables": "ours, layers and positions dense",
    "small_deployed_svd": "*small dense, equal deployed bytes, with our start*",
    "small_deployed_svd_dropout": "*small dense, equal deployed bytes, with our start and our dropout*",
}
FOR_INT4_NAMES = {f"{method}_int4": f"{name}, trained for int4" for method, name in METHOD_NAMES.items()}
# ours comes first, for a page shows the first columns of a wide table
_SUMMARY = (
    *("ours", "dense", "small_deployed", "small_deployed_svd"),
    *("pruned_at_once", "pruned_gradually", "published", "sparserec"),
)
_BEGIN, _END = "<!-- tables -->\n", "<!-- end of tables -->\n"
ABLATION_NAMES = {
    "ours": "ours",
    "ours_uniform": "random start: `sparse_init=uniform`",
    "ours_fixed": "no exchange: `topology=fixed`",
    "ours_ratio": "`update_ratio=0.5`, as published",
    "ours_window": "`grow_window=1`, as published",
    "ours_random_growth": "`grow=random`",
    "ours_unrotated": "start without varimax",
    "ours_all_factors": "start without parallel analysis: all factors rotated",
    "ours_unshrunk": "start without shrinkage",
    "ours_damping": "start with damping by the square root",
    "ours_unrepeated": "start whose repeated factors are small",
}


def write_page(path: Path, text: str) -> None:
    """Write ``text`` into ``path``, between its two marks; what is around them stays as it is."""
    before, _, rest = path.read_text().partition(_BEGIN) if path.exists() else ("", "", "")
    after = rest.partition(_END)[2]
    path.write_text(before + _BEGIN + text + _END + after)


def tables(lines: list[Line]) -> str:
    """A table for each model and dataset, of lines that were `chosen_lines`."""
    by_pair = _by_pair(lines)
    return "".join(_table(*pair, of_pair) for pair, of_pair in by_pair.items()) + _ablations(by_pair)


def summary(lines: list[Line]) -> str:
    """One table at density 0.1, a row for each model and dataset, of lines that were `chosen_lines`."""
    rows = []
    for (model, dataset), cells in at_a_tenth(lines).items():
        figures = [f"{cells[method]:.4f}" if method in cells else "" for method in _SUMMARY]
        rows.append([f"{model}, {dataset}", f"{cells['ours'] / cells['dense']:.0%}", *figures])
    head = ["test NDCG@10", "ours / dense", *(METHOD_NAMES[method] for method in _SUMMARY)]
    return "\n" + markdown_table(head, rows) + "\n"


def at_a_tenth(lines: list[Line]) -> dict[tuple[str, str], dict[str, float]]:
    """NDCG@10 of each method at density 0.1, the mean of its seeds, by (model, dataset) with ours and dense."""
    return {
        pair: {method: mean(values) for method, values in cells.items()}
        for pair, cells in seeds_at_a_tenth(lines).items()
    }


def seeds_at_a_tenth(lines: list[Line], metric: str = "ndcg") -> dict[tuple[str, str], dict[str, list[float]]]:
    """As `at_a_tenth`, of each seed; with the ``metric`` "auc", the AUC of context-aware models."""
    found = {}
    for pair, of_pair in _by_pair(lines).items():
        cells: dict[str, list[float]] = {}
        for line in of_pair:
            if f"test_{metric}" in line and (line["method"] == "dense" or line["density"] == 0.1):
                cells.setdefault(line["method"], []).append(line[f"test_{metric}"])
        if "ours" in cells and "dense" in cells:
            found[pair] = cells
    return found


def _by_pair(lines: list[Line]) -> dict[tuple[str, str], list[Line]]:
    pairs = sorted({(line["model"], line["dataset"]) for line in lines})
    return {pair: [line for line in lines if (line["model"], line["dataset"]) == pair] for pair in pairs}


def _table(model: str, dataset: str, lines: list[Line]) -> str:
    cells: dict[tuple[str, float], list[Line]] = {}
    for line in lines:
        cells.setdefault((line["method"], line["density"]), []).append(line)
    if all(line["method"] == "dense" for line in lines):
        return ""
    densities = sorted({density for method, density in cells if method != "dense"}, reverse=True)
    seeds = len({line["seed"] for line in lines})
    dense = [score(line, "test") for line in cells.get(("dense", 1.0), ())]
    is_auc = "test_auc" in lines[0]
    shown = "in brackets the difference to dense, then LogLoss" if is_auc else "in brackets the share of dense"
    rows = [
        f"\n### {model}, {dataset}\n\n",
        f"Test {'AUC' if is_auc else 'NDCG@10'}, ",
        f"{'mean ± standard deviation of ' + str(seeds) + ' seeds' if seeds > 1 else 'one seed'}, ",
        f"{shown}.\n\n",
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


def _ablations(by_pair: dict[tuple[str, str], list[Line]]) -> str:
    """One table of our recipe with one thing changed, at density 0.1 and the first seed."""
    found = {
        pair: {line["method"]: line for line in lines if line["density"] == 0.1 and line["seed"] == 2020}
        for pair, lines in by_pair.items()
    }
    found = {pair: methods for pair, methods in found.items() if "ours_uniform" in methods}
    if not found:
        return ""
    head = ["density 0.1, seed 2020", *(f"{model}, {dataset}" for model, dataset in found)]
    rows = [
        [name, *(f"{methods[method]['test_ndcg']:.4f}" if method in methods else "" for methods in found.values())]
        for method, name in ABLATION_NAMES.items()
    ]
    return "\n### Our recipe with one thing changed\n\n" + markdown_table(head, rows)


def _cell(lines: list[Line], dense: list[float]) -> str:
    if not lines:
        return ""
    values = [score(line, "test") for line in lines]
    if "test_auc" in lines[0]:
        difference = f" ({mean(values) - mean(dense):+.4f})" if dense else ""
        return f"{mean_of_seeds(values)}{difference}, {mean(line['test_logloss'] for line in lines):.4f}"
    share = f" ({mean(values) / mean(dense):.0%})" if dense else ""
    return f"{mean_of_seeds(values)}{share}"
