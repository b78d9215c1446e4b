"""The README's figure: what a tenth of the weights keeps of the dense model's quality, beside the rivals."""

from pathlib import Path

from benchmarks.quality_lines import Line
from benchmarks.quality_tables import at_a_tenth

_SHOWN = {
    "ours": ("ours", "o", "#00897b", 46),
    "small_deployed": ("small dense, equal deployed bytes", "s", "#9e9e9e", 22),
    "published": ("DSL as published", "D", "#fb8c00", 20),
    "pruned_at_once": ("dense, pruned at once, fine-tuned", "v", "#7e57c2", 22),
}


def draw(lines: list[Line], path: Path) -> None:
    """A row for each model and dataset, as SVG, of lines that were `chosen_lines`."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "recbole-dsl"
    from matplotlib import pyplot

    cells = at_a_tenth(lines)
    rows = {pair: row for row, pair in enumerate(reversed(list(cells)))}
    end = 5 + max(100 * of[method] / of["dense"] for of in cells.values() for method in _SHOWN if method in of)
    figure, axis = pyplot.subplots(figsize=(8, 0.9 + 0.27 * len(rows)))
    for method, (name, mark, colour, size) in _SHOWN.items():
        found = [(100 * of[method] / of["dense"], rows[pair]) for pair, of in cells.items() if method in of]
        axis.scatter(*zip(*found), marker=mark, s=size, c=colour, label=name, zorder=3)
    axis.axvline(100, color="black", linewidth=0.8)
    axis.hlines(rows.values(), 0, end, color="#e0e0e0", linewidth=0.6, zorder=0)
    axis.set_yticks(list(rows.values()), [", ".join(pair) for pair in rows], fontsize=8)
    axis.set(xlim=(15, end), xlabel="test NDCG@10 at a tenth of the weights, % of the dense model's")
    axis.legend(fontsize=7, loc="lower left", framealpha=1)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
