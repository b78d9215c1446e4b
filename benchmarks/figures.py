"""What the figures of results/ share: SVG that is the same each time, on white, for dark pages too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OURS, RIVAL, STARTED, PUBLISHED, PRUNED = "#00897b", "#757575", "#c2185b", "#ef6c00", "#5e35b1"
QUANTISED = "#1565c0"


@contextmanager
def figure_in(path: Path, columns: int = 1, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a figure with one axis, or ``columns`` side by side, and write it to ``path`` at the end.

    ``options`` are those of `pyplot.subplots`, as ``nrows``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"svg.hashsalt": "recbole-dsl", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(ncols=columns, **options)
        try:
            yield figure, axes
            figure.tight_layout()
            figure.savefig(path, metadata={"Date": None})
        finally:
            pyplot.close(figure)


def plain_ticks(axis: Any, values: Any) -> None:
    """Mark ``values`` on a matplotlib axis (``axes.xaxis``), in plain digits and with no others between."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
