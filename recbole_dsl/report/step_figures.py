"""Time and memory of a training step, the bars of all runs side by side."""

from collections.abc import Sequence

from recbole_dsl.measure.cost import Cost
from recbole_dsl.report.charts import short
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import Bar, Figure, legend_of

_DENSE = "dense"


def parts_of_step(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """Time and memory of the parts of a training step, and why a run has no times."""
    timed = [(run, vars(run.data.parts)) for run in runs if run.data and run.data.parts]
    costs = [(run, run.data.cost) for run in runs if run.data]
    parts: list[Figure | str] = []
    if timed:
        parts.append(_time(timed))
    parts += [f"{run.name}: {run.data.lacks.get('parts', '')}." for run in runs if run.data and not run.data.parts]
    return [*parts, _memory(costs)] if costs else parts


def _time(timed: Sequence[tuple[RunFacts, dict[str, float]]]) -> Figure:
    times = timed[0][1]
    slowest = max(times, key=lambda name: times[name])
    longest = max(ms for _, of_run in timed for ms in of_run.values())
    bars = [
        Bar(name if place == 0 else "", of_run[name] / longest, f"{of_run[name]:.2f} ms", run.style)
        for name in times
        for place, (run, of_run) in enumerate(timed)
    ]
    words = (
        f"{sum(times.values()):.1f} ms a step; most of it is the {slowest} "
        f"({times[slowest] / sum(times.values()):.0%}). Measured when this page was made, on this machine, as "
        "medians of a few steps. Updates of the topology come on top."
    )
    return Figure("Time", words, legend=legend_of([run for run, _ in timed]), bars=bars)


def _memory(costs: Sequence[tuple[RunFacts, Cost]]) -> Figure:
    first = costs[0][1]
    # a dense column that all have
    has_one_dense = len({cost.weights.dense for _, cost in costs}) == 1
    rows = {
        "weights, indices": [cost.bytes for _, cost in costs],
        "optimizer": [cost.optimizer_bytes for _, cost in costs],
        "growth": [cost.growth_bytes for _, cost in costs],
    }
    dense = {"weights, indices": first.bytes.dense, "optimizer": first.optimizer_bytes.dense}
    found: dict[str, list[tuple[int, str]]] = {}
    for name, of_runs in rows.items():
        found[name] = [(row.sparse, run.style) for row, (run, _) in zip(of_runs, costs) if row.sparse]
        if has_one_dense and dense.get(name):
            found[name].append((int(dense[name] or 0), _DENSE))
    largest = max([1, *(size for sizes in found.values() for size, _ in sizes)])
    bars = [
        Bar(name if place == 0 else "", size / largest, f"{short(size)}B", style)
        for name, sizes in found.items()
        for place, (size, style) in enumerate(sizes)
    ]
    words = (
        "Gradients take as much as the weights without their indices. Growth is the most that the sums of "
        "gradients take, before an update."
    )
    legend = legend_of([run for run, _ in costs])
    if has_one_dense:
        legend = [*([("sparse", legend[0][1])] if len(costs) == 1 else legend), ("the same model dense", _DENSE)]
    return Figure("Memory", words, legend=legend, bars=bars)
