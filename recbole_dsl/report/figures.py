"""The figures of a report, each with a caption that says what it shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from recbole_dsl.report.charts import Axis, Series, categories, lines, short
from recbole_dsl.report.facts import RunFacts

_BINS = 12
_FEW = 10


@dataclass(frozen=True)
class Bar:
    """A bar: its label, its share of the longest one, what is written at its end, and the number of its colour."""

    label: str
    share: float
    text: str
    colour: int = 0


@dataclass(frozen=True)
class Figure:
    """A figure with its title, and what it shows in words.

    Attributes:
        drawing: as SVG, of `charts`.
        legend: the names of the lines of the drawing.
        head, rows: of a table.
        bars: one below the other.
    """

    title: str
    words: str
    drawing: Markup | str = ""
    legend: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    bars: Sequence[Bar] = ()


def figures_of_training(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Loss and validation over the epochs, and how long these took."""
    known = [run for run in runs if run.record.epoch]
    if not known:
        return ["The file is of a version that kept no record of its epochs."]
    names, first, epoch = [run.name for run in known], known[0], Axis("epoch")
    record = first.record
    losses = [Series(run.name, run.record.epoch, run.record.loss) for run in known]
    shown = losses[0].points
    words = "The trainer gives no loss."
    if shown:
        (begin, high), (end, low) = shown[0], shown[-1]
        words = (
            f"The sum of the batches' losses in each epoch, from {short(high)} in epoch {begin:g} to {short(low)} "
            f"in epoch {end:g}."
        )
    parts = [Figure("Loss", words, lines(losses, epoch, Axis("loss"), "Loss over the epochs"), names)]
    for metric in _metrics(first):
        series = [Series(run.name, run.record.epoch, run.record.valid.get(metric, ())) for run in known]
        best = max(series[0].points, key=lambda point: point[1], default=None)
        words = f"Highest in epoch {best[0]:g}, with {best[1]:.4f}." if best else "It was not evaluated."
        words += f" The model that was saved is epoch {first.best_epoch}'s."
        drawn = lines(series, epoch, Axis(metric), f"{metric} over the epochs")
        parts.append(Figure(f"Validation: {metric}", words, drawn, names))
    seconds = [Series(run.name, run.record.epoch, run.record.train_seconds) for run in known]
    evaluated = sum(value or 0 for value in record.valid_seconds)
    words = f"Training took {sum(record.train_seconds):.1f} s in all, evaluating {evaluated:.1f} s."
    drawn = lines(seconds, epoch, Axis("seconds"), "Seconds of training in each epoch", from_zero=True)
    return _drawn([*parts, Figure("Time of an epoch", words, drawn, names)])


def figures_of_topology(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """The share of weights that updates exchanged, the exploration rate, and the density of each tensor."""
    known = [run for run in runs if any(update.exchanged for update in run.updates)]
    if not known:
        return ["No weights were exchanged: the topology is the one of the start."]
    names, first, step = [run.name for run in known], known[0], Axis("step")
    updates = first.updates
    alive = _alive(first)
    exchanged = sum(update.exchanged for update in updates)
    words = f"Pruned and grown again at each of {len(updates)} updates, {exchanged:,} weights in all"
    words += f", of {alive:,} that are alive." if alive else "."
    shares = [Series(run.name, _steps(run), _shares(run)) for run in known]
    drawn = lines(shares, step, Axis("% of the alive weights"), "Share exchanged at each update", from_zero=True)
    parts = [Figure("Share exchanged", words, drawn, names)]
    rates = [Series(r.name, _steps(r), [100 * update.exploration_rate for update in r.updates]) for r in known]
    rate, start = updates[-1].exploration_rate, updates[0].exploration_rate
    words = (
        f"{rate:.1%} of all weights were alive at some time, {start:.1%} by the first update. At each "
        f"moment {first.density:.1%} are."
    )
    drawn = lines(rates, step, Axis("% of all weights"), "Exploration rate")
    parts.append(Figure("Exploration rate", words, drawn, names))
    parts.append(_densities(first))
    return _drawn(parts)


def figures_of_rows(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Alive weights of a row by its training interactions, of users and of items."""
    parts = []
    for side in ("user", "item"):
        series, known = [], []
        for run in runs:
            # all rows of a dense run have the same
            if run.density < 1 and run.data and run.data.groups and side in run.data.widths:
                counts = run.data.groups.counts[side]
                series.append(_band(run.name, counts[1:], run.data.widths[side][1 : len(counts)]))
                known.append(run)
        if not known or known[0].data is None or known[0].data.groups is None:
            continue
        widths, counts = known[0].data.widths[side][1:], known[0].data.groups.counts[side][1:]
        tenths = np.array_split(np.argsort(counts, kind="stable"), 10)
        words = (
            f"The tenth of the {side}s with the fewest interactions has {widths[tenths[0]].mean():.1f} alive "
            f"weights each, the tenth with the most {widths[tenths[-1]].mean():.1f}; {np.mean(widths == 0):.1%} "
            "have none. The band holds four of five rows."
        )
        x = Axis("training interactions", is_log=True)
        drawn = lines(series, x, Axis("alive weights"), f"Alive weights of {side}s", from_zero=True)
        parts.append(Figure(f"{side.capitalize()}s", words, drawn, [run.name for run in known]))
    return _drawn(parts)


def figures_of_who_pays(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Quality by groups of users and of items."""
    known = [run for run in runs if run.data and run.data.hits and run.data.groups]
    lacking = [run.data.lacks["hits"] for run in runs if run.data and "hits" in run.data.lacks]
    if not known:
        return [f"It is not shown: {lacking[0]}."] if lacking else []
    names = [run.name for run in known]
    of_users, of_items = [], []
    ranges: dict[str, list[str]] = {}
    for run in known:
        if run.data is None or run.data.groups is None or run.data.hits is None:
            continue
        groups, hits = run.data.groups, run.data.hits
        ranges = ranges or {side: groups.ranges(side) for side in ("user", "item")}
        numbers = list(range(len(groups.members["user"])))
        of_users.append(Series(run.name, numbers, [hits.of_users(group)[1] for group in groups.members["user"]]))
        of_items.append(Series(run.name, numbers, [hits.of_items(group) for group in groups.members["item"]]))
    x = "training interactions"
    ranges = {side: [one.replace(" - ", "–") for one in of_side] for side, of_side in ranges.items()}  # noqa: RUF001
    users = categories(ranges["user"], of_users, x, Axis("NDCG@10"), "NDCG@10 of groups of users")
    items = categories(ranges["item"], of_items, x, Axis("share found"), "Share of test interactions found")
    words = {
        "user": f"Five groups of as many users, the least active first. {_compared(of_users)}",
        "item": "Five groups of items with as many interactions, the least popular first: the share of their test "
        f"interactions that are among the first ten. {_compared(of_items)}",
    }
    return _drawn([Figure("Users", words["user"], users, names), Figure("Items", words["item"], items, names)])


def _drawn(figures: Sequence[Figure]) -> list[Figure | str]:
    """``figures`` but those without points."""
    return [one for one in figures if one.drawing]


def _metrics(run: RunFacts) -> list[str]:
    """The metrics to draw: NDCG, if it was measured, and the first other one."""
    names = list(run.record.valid)
    chosen = [name for name in names if name.startswith("ndcg")][:1]
    return [*chosen, *(name for name in names if name not in chosen)][:2]


def _steps(run: RunFacts) -> list[int]:
    return [update.step for update in run.updates]


def _alive(run: RunFacts) -> int:
    return sum(tensor.nnz for tensor in run.data.tensors) if run.data else 0


def _shares(run: RunFacts) -> list[float]:
    """Percent of the alive weights that each update exchanged; the ratio that was set, if these are unknown."""
    alive = _alive(run)
    return [100 * (update.exchanged / alive if alive else update.ratio) for update in run.updates]


def _densities(run: RunFacts) -> Figure:
    """The density of each tensor at each update; of many tensors, those that change most."""
    names = list(run.updates[0].density)
    series = [Series(name, _steps(run), [100 * u.density.get(name, 0.0) for u in run.updates]) for name in names]
    series.sort(key=lambda one: max(y or 0 for y in one.ys) - min(y or 0 for y in one.ys), reverse=True)
    moved = any(abs((one.ys[0] or 0) - (one.ys[-1] or 0)) > 0.01 for one in series)
    words = "Updates moved weights between the tensors." if moved else "Each tensor kept its share of the budget."
    words += f" Shown are {min(len(names), 6)} of {len(names)} tensors." if len(names) > 6 else ""
    words += f" Of the run {run.name}." if run.name else ""
    drawn = lines(series[:6], Axis("step"), Axis("% alive"), "Density of each tensor", from_zero=True)
    return Figure("Density of each tensor", words, drawn, [one.name for one in series[:6]])


def _band(name: str, counts: NDArray, widths: NDArray) -> Series:
    """Mean widths of bins of rows by their interactions, with a band from the 10th to the 90th percentile."""
    order = np.argsort(counts, kind="stable")
    bins = [part for part in np.array_split(order, min(_BINS, max(1, len(order) // _FEW))) if len(part)]
    low, high = (np.array([np.percentile(widths[part], share) for part in bins]) for share in (10, 90))
    places = [max(1.0, float(counts[part].mean())) for part in bins]
    means = [float(widths[part].mean()) for part in bins]
    return Series(name, places, means, low.tolist(), high.tolist())


def _compared(series: Sequence[Series]) -> str:
    """The first of ``series`` compared with the second in words; by itself if it is the only one."""
    own = [y for y in series[0].ys if y is not None]
    if len(series) < 2:
        return f"From {own[0]:.3f} in the first group to {own[-1]:.3f} in the last."
    other = [y for y in series[1].ys if y is not None]
    worse = [str(number) for number, (a, b) in enumerate(zip(own, other), 1) if a < b]
    if not worse:
        return f"{series[0].name} is at least as good as {series[1].name} in every group."
    return f"{series[0].name} is behind {series[1].name} in group {', '.join(worse)} of {len(own)}."
