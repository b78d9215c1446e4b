"""The figures of quality: what a tenth of the weights keeps of the dense model's, and quality against bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.figures import OURS, PRUNED, PUBLISHED, QUANTISED, RIVAL, STARTED, figure_in, plain_ticks
from benchmarks.quality_lines import Line, stored
from benchmarks.quality_tables import seeds_at_a_tenth

_SHOWN = {
    "ours": ("ours", "o", OURS, 46),
    "small_deployed_svd": ("small dense with our start, equal bytes", "s", STARTED, 22),
    "small_deployed_svd_dropout": ("small dense with our start and dropout", "^", STARTED, 22),
    "small_deployed": ("small dense, equal bytes", "s", RIVAL, 22),
    "recjpq": ("product quantisation (RecJPQ)", "P", QUANTISED, 22),
    "quotient_remainder": ("quotient-remainder hashing", "X", QUANTISED, 22),
    "published": ("DSL as published", "D", PUBLISHED, 20),
    "pruned_at_once": ("dense, pruned, fine-tuned", "v", PRUNED, 22),
}
_DATASETS = {
    "ml-1m-thin-8": "ml-1m, thinned to 8 a user",
    "beauty-thin-6": "beauty, thinned to 6 a user",
    "groups-2000": "2,000 small groups (made)",
    "fields-300000": "20 fields of long tails (made)",
}
_Cells = dict[tuple[str, str], dict[str, list[float]]]
_WIDTH = 64
_TICKS = [digit * 10**power for power in range(6) for digit in (1, 2, 5)]


def draw(lines: list[Line], path: Path) -> None:
    """A row for each model and dataset, as SVG, of lines that were `chosen_lines`; bars span the seeds.

    Above, the share of dense NDCG@10; below, the distance from dense AUC.
    """
    by_ndcg = _beside_dense(seeds_at_a_tenth(lines), lambda value, dense: 100 * value / dense)
    by_auc = _beside_dense(seeds_at_a_tenth(lines, "auc"), lambda value, dense: value - dense)
    heights = [len(cells) + 2 for cells in (by_ndcg, by_auc)]
    with figure_in(path, nrows=2, height_ratios=heights, figsize=(8, 1.2 + 0.27 * sum(heights))) as (_, axes):
        _draw_rows(axes[0], by_ndcg, 100)
        axes[0].set(xlim=(15, None), xlabel="test NDCG@10, % of dense")
        _draw_rows(axes[1], by_auc, 0)
        axes[1].set(xlabel="test AUC, difference from dense")
        named = {name: mark for axis in axes for mark, name in zip(*axis.get_legend_handles_labels())}
        style = {"fontsize": 7, "loc": "lower center", "bbox_to_anchor": (0.4, 1), "ncols": 3, "frameon": False}
        axes[0].legend(named.values(), named, **style)


def _beside_dense(cells: _Cells, compare: Callable[[float, float], float]) -> _Cells:
    """``cells`` with each value compared with the mean of the dense model's."""
    return {
        pair: {method: [compare(value, mean(of["dense"])) for value in values] for method, values in of.items()}
        for pair, of in cells.items()
    }


def _draw_rows(axis: Any, cells: _Cells, dense: float) -> None:
    rows = {pair: row for row, pair in enumerate(reversed(list(cells)))}
    for method, (name, mark, colour, size) in _SHOWN.items():
        found = [(of[method], rows[pair]) for pair, of in cells.items() if method in of]
        if not found:
            continue
        ranges = [(row, min(values), max(values)) for values, row in found]
        axis.hlines(*zip(*ranges), color=colour, linewidth=1.5, zorder=2)
        means = [(mean(values), row) for values, row in found]
        axis.scatter(*zip(*means), marker=mark, s=size, c=colour, label=name, zorder=3)
    axis.axvline(dense, color="black", linewidth=0.8)
    axis.grid(axis="y", color="#e0e0e0", linewidth=0.6)
    axis.set_axisbelow(True)
    names = [f"{model}, {_DATASETS.get(dataset, dataset)}" for model, dataset in rows]
    axis.set_yticks(list(rows.values()), names, fontsize=8)


def draw_frontier(lines: Sequence[Line], quantised: Sequence[Line], pair: tuple[str, str], path: Path) -> None:
    """NDCG@10, or AUC, of a model against the bytes of all its weights, in float32 and quantised, as SVG.

    Bytes of sparse weights include their indices.

    Args:
        lines: were `chosen_lines`.
        quantised: of `benchmarks.quantised`, for BPR; lines of other models may hold their own.
        pair: the model and the dataset.
    """
    lines = [line for line in lines if (line["model"], line["dataset"]) == pair]
    dense = next(line for line in lines if line["method"] == "dense")
    with figure_in(path, figsize=(8, 4.6)) as (_, axis):
        for method, (name, mark, colour, size) in _SHOWN.items():
            if places := _means(lines, method):
                axis.plot(*zip(*places), marker=mark, markersize=size**0.5, color=colour, label=f"{name}, float32")
            for values, style in (("int8", "--"), ("int4", ":")):
                if places := _means(lines, method, values):
                    how = {"marker": mark, "markersize": size**0.5, "color": colour, "linestyle": style}
                    axis.plot(*zip(*places), markerfacecolor="white", label=f"{name}, {values}", **how)
        for side, (name, mark, colour) in _QUANTISED.items():
            found = [line for line in quantised if ("BPR", line["dataset"], line["side"]) == (*pair, side)]
            # the curve of ours in int8 goes through that point
            if found and not (side == "**ours**, int8" and _means(lines, "ours", "int8")):
                x = mean(line["row_bytes"] for line in found) * dense["weights"] / _WIDTH / 1e3
                y = mean(line["quantised"] for line in found)
                axis.plot(x, y, mark, color=colour, markerfacecolor="white", label=name)
        for values, colour in (("float32", "black"), ("int8", "white"), ("int4", "#bbbbbb")):
            if places := _means(lines, "dense", values):
                axis.plot(*places[0], "k*", markersize=11, markerfacecolor=colour, label=f"dense, {values}")
        axis.axhline(_means(lines, "dense")[0][1], color="black", linewidth=0.6, linestyle=":")
        metric = "AUC" if "test_auc" in dense else "NDCG@10"
        axis.set(xscale="log", xlabel="kB of weights and indices", ylabel=f"test {metric}")
        low, high = axis.get_xlim()
        plain_ticks(axis.xaxis, [tick for tick in _TICKS if low < tick < high])
        axis.set_title(", ".join(pair), fontsize=10)
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


_QUANTISED: Mapping[str, tuple[str, str, Any]] = {
    "**ours**, int8": ("ours, int8", "o", OURS),
    "**ours**, int4": ("ours, int4, density 0.158", "d", OURS),
    "narrow dense with our start, int8": ("small dense with our start, int8", "s", STARTED),
    "narrow dense with our start, int4": ("small dense with our start, int4", "d", STARTED),
    "narrow dense, int8": ("small dense, int8", "s", RIVAL),
    "narrow dense, int4": ("small dense, int4", "d", RIVAL),
}


def _means(lines: Sequence[Line], method: str, values: str = "float32") -> list[tuple[float, float]]:
    """(kB, NDCG@10 or AUC) of ``method`` at each density, the smallest first."""
    cells: dict[float, list[tuple[int, float]]] = {}
    for line in lines:
        if line["method"] == method and (found := stored(line, values)):
            cells.setdefault(line["density"], []).append(found)
    means = [[mean(side) for side in zip(*of)] for of in cells.values()]
    return sorted((n_bytes / 1e3, value) for n_bytes, value in means)
