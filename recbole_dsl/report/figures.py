"""The figures of a report about training, topology and groups, each with a caption that says what it shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from recbole_dsl.report.charts import MOST, Axis, Series, categories, lines, short
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.metrics import is_lower_better, shown_name

_BINS = 12
_FEW = 10
# epochs that are written below the steps
_EPOCHS = 6
# the style of the list of the most popular items
BASELINE = "base"


@dataclass(frozen=True)
class Bar:
    """A bar: its label, its share of the longest one, what is written at its end, and its style."""

    label: str
    share: float
    text: str
    style: str = "s0"


@dataclass(frozen=True)
class Figure:
    """A figure with its title, and what it shows in words.

    Attributes:
        drawing: as SVG, of `charts`.
        legend: (name, style) of the lines of the drawing, or of the bars.
        head, rows: of a table.
        bars: one below the other.
    """

    title: str
    words: str
    drawing: Markup | str = ""
    legend: Sequence[tuple[str, str]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    bars: Sequence[Bar] = ()


def legend_of(series: Sequence[Series | RunFacts]) -> list[tuple[str, str]]:
    """The name and the style of each of ``series``."""
    return [(one.name, one.style) for one in series]


def counted(number: int, noun: str) -> str:
    """``number`` with ``noun``, in the plural unless it is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def figures_of_training(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Loss and validation over the epochs, and how long these took."""
    known = [run for run in runs if run.record.epoch]
    if not known:
        return ["The file is of a version that kept no record of its epochs."]
    first, epoch = known[0], Axis("epoch", is_whole=True)
    record, legend = first.record, legend_of(known)
    losses = [Series(r.name, r.record.epoch, r.record.loss, r.style, marked=r.best_epoch) for r in known]
    shown = losses[0].points
    words = "The trainer gives no loss."
    if shown:
        (begin, high), (end, low) = shown[0], shown[-1]
        words = f"The sum of the batches' losses in each epoch, {short(high)} in epoch {begin:g}"
        words += f" and {short(low)} in epoch {end:g}." if end > begin else "."
        words += " The ring marks the epoch that was saved."
    parts = [Figure("Loss", words, lines(losses, epoch, Axis("loss"), "Loss over the epochs"), legend)]
    for metric in _metrics(first):
        series = [
            Series(r.name, r.record.epoch, r.record.valid.get(metric, ()), r.style, marked=r.best_epoch)
            for r in known
        ]
        name, drawn = shown_name(metric), lines(series, epoch, Axis(shown_name(metric)), f"{metric} by epoch")
        words = _validated(first, metric, series[0])
        parts.append(Figure(f"Validation: {name}", words, drawn, legend))
    seconds = [Series(run.name, run.record.epoch, run.record.train_seconds, run.style) for run in known]
    evaluated = sum(value or 0 for value in record.valid_seconds)
    words = f"Training took {sum(record.train_seconds):.1f} s in all, evaluating {evaluated:.1f} s."
    drawn = lines(seconds, epoch, Axis("seconds", from_zero=True), "Seconds of training in each epoch")
    return _drawn([*parts, Figure("Time of an epoch", words, drawn, legend)])


def figures_of_topology(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """The share of weights that updates exchanged, the exploration rate, and the density of each tensor."""
    known = [run for run in runs if any(update.exchanged for update in run.updates)]
    if not known:
        return ["No weights were exchanged: the topology is the one of the start."]
    first, step, legend = known[0], _step_axis(known), legend_of(known)
    updates = first.updates
    alive = _alive(first)
    exchanged = sum(update.exchanged for update in updates)
    words = f"{counted(len(updates), 'update')} pruned and grew {exchanged:,} weights in all"
    words += f"; {alive:,} are alive." if alive else "."
    shares = [Series(run.name, _steps(run), _shares(run), run.style) for run in known]
    share = Axis("% of the alive weights", from_zero=True)
    drawn = lines(shares, step, share, "Share exchanged at each update")
    parts = [Figure("Share exchanged", words, drawn, legend)]
    rates = [
        Series(r.name, _steps(r), [100 * update.exploration_rate for update in r.updates], r.style) for r in known
    ]
    rate, start = updates[-1].exploration_rate, updates[0].exploration_rate
    words = (
        f"{rate:.1%} of all weights were alive at some time, {start:.1%} by the first update. At each "
        f"moment {first.density:.1%} are."
    )
    drawn = lines(rates, step, Axis("% of all weights", from_zero=True), "Exploration rate")
    parts.append(Figure("Exploration rate", words, drawn, legend))
    styles: dict[str, str] = {}
    return _drawn([*parts, *(_densities(run, styles, len(runs) > 1) for run in known)])


def figures_of_rows(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Alive weights of a row by its training interactions, of users and of items."""
    parts = []
    for side in ("user", "item"):
        series, known = [], []
        for run in runs:
            # all rows of a dense run have the same
            if run.density < 1 and run.data and run.data.groups and side in run.data.widths:
                counts = run.data.groups.counts[side]
                series.append(_band(run, counts[1:], run.data.widths[side][1 : len(counts)]))
                known.append(run)
        if not known or known[0].data is None or known[0].data.groups is None:
            continue
        widths, counts = known[0].data.widths[side][1:], known[0].data.groups.counts[side][1:]
        tenths = np.array_split(np.argsort(counts, kind="stable"), 10)
        words = (
            f"The tenth of the {side}s with the fewest interactions has {widths[tenths[0]].mean():.1f} alive "
            f"weights each, the tenth with the most {widths[tenths[-1]].mean():.1f}; {np.mean(widths == 0):.1%} "
            "have none. The line is the mean of similar rows, and the band their middle 80 %."
        )
        x = Axis("training interactions", is_log=True)
        drawn = lines(series, x, Axis("alive weights", from_zero=True), f"Alive weights of {side}s")
        parts.append(Figure(f"{side.capitalize()}s", words, drawn, legend_of(known)))
    return _drawn(parts)


def figures_of_who_pays(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Quality by groups of users and of items, beside a list of the most popular items."""
    of_users: list[Series] = []
    of_items: list[Series] = []
    ranges: dict[str, list[str]] = {}
    for run in runs:
        if run.data is None or run.data.groups is None or run.data.hits is None:
            continue
        groups = run.data.groups
        lists = [(run.name, run.style, run.data.hits)]
        if not ranges and run.data.popular:
            lists.append(("most popular items", BASELINE, run.data.popular))
        ranges = ranges or {side: groups.ranges(side) for side in ("user", "item")}
        of_side = groups.members
        for name, style, hits in lists:
            places = range(len(of_side["user"]))
            of_users.append(Series(name, places, [hits.of_users(g)[1] for g in of_side["user"]], style))
            of_items.append(Series(name, places, [hits.of_items(g) for g in of_side["item"]], style))
    if not of_users:
        lacking = [run.data.lacks["hits"] for run in runs if run.data and "hits" in run.data.lacks]
        return [f"Not shown: {lacking[0]}."] if lacking else []
    x, legend = "training interactions", legend_of(of_users)
    ranges = {side: [one.replace(" - ", "–") for one in of_side] for side, of_side in ranges.items()}  # noqa: RUF001
    users = categories(ranges["user"], of_users, x, Axis("NDCG@10", from_zero=True), "NDCG@10 of groups of users")
    share = Axis("share found", from_zero=True)
    items = categories(ranges["item"], of_items, x, share, "Share of test interactions found")
    words = {
        "user": f"Users in five groups of equal size, the least active first. {_compared(of_users)}",
        "item": "Items in five groups with equally many training interactions, the least popular first. The share "
        f"of their test interactions that are among the first ten. {_compared(of_items)}",
    }
    return _drawn([Figure("Users", words["user"], users, legend), Figure("Items", words["item"], items, legend)])


def _drawn(figures: Sequence[Figure]) -> list[Figure | str]:
    """``figures`` but those without points."""
    return [one for one in figures if one.drawing]


def _metrics(run: RunFacts) -> list[str]:
    """The metrics to draw: the one that chose the epoch, and NDCG or the first other one."""
    names = list(run.record.valid)
    names.sort(key=lambda name: (name != run.valid_metric, not name.startswith("ndcg")))
    return names[:2]


def _validated(run: RunFacts, metric: str, series: Series) -> str:
    pick, word = (min, "Lowest") if is_lower_better(metric) else (max, "Highest")
    best = pick(series.points, key=lambda point: point[1], default=None)
    words = f"{word} in epoch {best[0]:g}, with {best[1]:.4f}. " if best else "It was not evaluated. "
    chose = "It chose the epoch that was saved" if metric == run.valid_metric else "The saved epoch is"
    return f"{words}{chose}{',' if metric == run.valid_metric else ''} {run.best_epoch} (ring)."


def _steps(run: RunFacts) -> list[int]:
    return [update.step for update in run.updates]


def _step_axis(runs: Sequence[RunFacts]) -> Axis:
    """Steps, with the epochs of the longest of ``runs`` in a row below, each at its last step."""
    run = max(runs, key=lambda one: len(one.record.step))
    last = max(step for one in runs for step in _steps(one))
    ends = [(end, epoch) for end, epoch in zip(run.record.step, run.record.epoch) if end <= last]
    shown = ends[:: math.ceil(len(ends) / _EPOCHS)] if ends else []
    others = [(float(end), f"{epoch}") for end, epoch in shown if end >= min(_steps(run))]
    if not others:
        return Axis("step", is_whole=True)
    whose = f" of {run.name}" if len({tuple(one.record.step[:1]) for one in runs}) > 1 else ""
    return Axis(f"step; below, the epoch{whose} that ends there", is_whole=True, others=others)


def _alive(run: RunFacts) -> int:
    return sum(tensor.nnz for tensor in run.data.tensors) if run.data else 0


def _shares(run: RunFacts) -> list[float]:
    """Percent of the alive weights that each update exchanged; the ratio that was set, if these are unknown."""
    alive = _alive(run)
    return [100 * (update.exchanged / alive if alive else update.ratio) for update in run.updates]


def _densities(run: RunFacts, styles: dict[str, str], is_named: bool) -> Figure:
    """The density of each tensor at each update; of many tensors, those that change most.

    Args:
        styles: those of the tensors so far, to which new ones are added.
    """
    densities = {name: [100 * u.density.get(name, 0.0) for u in run.updates] for name in run.updates[0].density}
    names = sorted(densities, key=lambda name: max(densities[name]) - min(densities[name]), reverse=True)[:MOST]
    for name in names:
        styles.setdefault(name, f"t{len(styles) % MOST}")
    series = [Series(name, _steps(run), densities[name], styles[name]) for name in names]
    moved = any(abs(densities[name][0] - densities[name][-1]) > 0.01 for name in names)
    words = "Updates moved weights between the tensors." if moved else "Each tensor kept its share of the budget."
    words += f" Shown are {MOST} of {len(densities)} tensors." if len(densities) > MOST else ""
    title = "Density of each tensor" + (f": {run.name}" if is_named else "")
    drawn = lines(series, _step_axis([run]), Axis("% alive", from_zero=True), title)
    return Figure(title, words, drawn, legend_of(series))


def _band(run: RunFacts, counts: NDArray, widths: NDArray) -> Series:
    """Mean widths of bins of rows by their interactions, with a band from the 10th to the 90th percentile."""
    order = np.argsort(counts, kind="stable")
    bins = [part for part in np.array_split(order, min(_BINS, max(1, len(order) // _FEW))) if len(part)]
    low, high = (np.array([np.percentile(widths[part], share) for part in bins]) for share in (10, 90))
    places = [max(1.0, float(counts[part].mean())) for part in bins]
    means = [float(widths[part].mean()) for part in bins]
    return Series(run.name, places, means, run.style, low.tolist(), high.tolist())


def _compared(series: Sequence[Series]) -> str:
    """The first of ``series`` compared with the next run in words; by itself if it is the only one."""
    series = [one for one in series if one.style != BASELINE]
    own = [y for _, y in series[0].points]
    if not own:
        return "None of them has test data."
    if len(series) < 2:
        return f"From {own[0]:.3f} in the first group to {own[-1]:.3f} in the last."
    both = [(x, y, z) for (x, y) in series[0].points for (a, z) in series[1].points if a == x]
    worse = [f"{x + 1:g}" for x, y, z in both if y < z]
    if not worse:
        return f"{series[0].name} is at least as good as {series[1].name} in every group."
    groups = "group" if len(worse) == 1 else "groups"
    return f"{series[0].name} is behind {series[1].name} in {groups} {', '.join(worse)} of {len(own)}."
