"""What came of the runs of a report, and what they cost: tiles, tables, and quality against bytes."""

from collections.abc import Sequence
from datetime import timedelta

from markupsafe import Markup

from recbole_dsl.measure.cost import Cost
from recbole_dsl.report.charts import Axis, Series, lines
from recbole_dsl.report.facts import RunFacts
from recbole_dsl.report.figures import BASELINE, Figure, counted, legend_of
from recbole_dsl.report.metrics import is_lower_better, shown_name, which_way, with_difference

# bytes that are so many times as many as others need a logarithmic axis
_FAR = 30
_POPULAR = "most popular items"


def tiles_of(run: RunFacts) -> list[tuple[str, str]]:
    """The numbers at the top of the page, each with its meaning."""
    tiles = [(f"{value:.4f}", f"{name} on the test data") for name, value in list(_tested(run).items())[:2]]
    for name, value in list(_validated(run).items())[:1] if not tiles else []:
        tiles.append((f"{value:.4f}", f"{name} on the validation data"))
    if run.data:
        tiles.append((run.data.cost.weights.shown[2], "of the dense model's weights"))
        tiles.append((run.data.cost.bytes.shown[2], "of its bytes, indices included"))
    if run.record.epoch:
        seconds = sum(run.record.train_seconds)
        tiles.append((_duration(seconds), f"of training, {counted(len(run.record.epoch), 'epoch')}"))
    if run.updates:
        tiles.append((f"{len(run.updates)}", f"topology update{'' if len(run.updates) == 1 else 's'}"))
    if run.nights:
        tiles.append((f"{len(run.nights)}", f"warm start{'' if len(run.nights) == 1 else 's'}"))
    return tiles


def parts_of_result(runs: Sequence[RunFacts]) -> list[Figure | str]:
    """The metrics and the costs of all runs, and quality against bytes."""
    parts: list[Figure | str] = [_metrics(runs)]
    known = [(run, run.data) for run in runs if run.data]
    if len(known) == 1:
        parts.append(_cost_of_one(known[0][1].cost))
    elif known:
        costs = [data.cost for _, data in known]
        names = [run.name for run, _ in known]
        parts += [_cost_of_several(names, costs), *_quality_by_bytes([run for run, _ in known], costs)]
    for run in runs:
        if not run.data:
            parts.append(f"{run.name}: no cost, test result or groups. {run.without_data}")
        elif "tested" in run.data.lacks:
            parts.append(f"{run.name}: {run.data.lacks['tested']}.")
    return parts


def _tested(run: RunFacts) -> dict[str, float]:
    """Metrics on the test data."""
    if not run.data:
        return {}
    if run.data.hits:
        return {"NDCG@10": run.data.hits.all_ndcg, "Recall@10": run.data.hits.all_recall}
    return {shown_name(name): value for name, value in run.data.tested.items()}


def _popular(run: RunFacts) -> dict[str, float]:
    """The same metrics of a list of the most popular items."""
    if not run.data or not run.data.popular:
        return {}
    return {"NDCG@10": run.data.popular.all_ndcg, "Recall@10": run.data.popular.all_recall}


def _validated(run: RunFacts) -> dict[str, float]:
    """Metrics on the validation data, the one that chose the epoch first."""
    names = sorted(run.best_valid, key=lambda name: name != run.valid_metric)
    return {shown_name(name): run.best_valid[name] for name in names}


def _metrics(runs: Sequence[RunFacts]) -> Figure:
    rows = []
    for label, values in (
        ("test {}", [_tested(run) for run in runs]),
        (f"test {{}}, {_POPULAR}", [_popular(run) for run in runs]),
        ("validation {}", [_validated(run) for run in runs]),
    ):
        for name in dict.fromkeys(name for of_run in values for name in of_run):
            found = [of_run.get(name) for of_run in values]
            texts = ["-" if value is None else f"{value:.4f}" for value in found]
            rows.append([label.format(name), *_compared(found, texts)])
    rows.append(["saved epoch", *(str(run.best_epoch) for run in runs)])
    metrics = [name for run in runs for name in (*_tested(run), *_validated(run))]
    words = f"Of the epoch that is best on the validation data. {which_way(list(dict.fromkeys(metrics)))}"
    words += " Differences are to the first run." if len(runs) > 1 else ""
    return Figure("Result", words, head=["metric", *(run.name for run in runs)], rows=rows)


def _compared(values: Sequence[float | None], texts: Sequence[str]) -> list[str]:
    """``texts`` of ``values``, all but the first with their difference to it."""
    first, cells = values[0], [texts[0]]
    for value, text in zip(values[1:], texts[1:]):
        change = "" if value is None or first is None else with_difference(value, first)
        cells.append(Markup("{}<small>{}</small>").format(text, change) if change else text)
    return cells


def _cost_of_one(cost: Cost) -> Figure:
    words = (
        "Measured on the tensors that exist; the dense column is what the same model would take with dense "
        f"weights. Weights and their indices take {cost.bytes.shown[2]} of the dense model's bytes."
    )
    rows = [[row.name, *row.shown] for row in cost.rows]
    return Figure("Cost, dense beside sparse", words, head=["", "dense", "sparse", "sparse / dense"], rows=rows)


def _cost_of_several(names: Sequence[str], costs: Sequence[Cost]) -> Figure:
    """One table: the dense model, if all would have the same, and each run with its difference to the first."""
    has_one_dense = len({cost.weights.dense for cost in costs}) == 1
    rows = []
    for of_runs in zip(*(cost.rows for cost in costs)):
        cells = _compared([row.sparse for row in of_runs], [row.shown[1] for row in of_runs])
        rows.append([of_runs[0].name, *([of_runs[0].shown[0]] if has_one_dense else []), *cells])
    words = "Measured on the tensors that exist. Differences are to the first run."
    words += " The first column is what the first run would take with dense weights." if has_one_dense else ""
    head = ["", *(["dense"] if has_one_dense else []), *names]
    return Figure("Cost", words, head=head, rows=rows)


def _quality_by_bytes(runs: Sequence[RunFacts], costs: Sequence[Cost]) -> list[Figure]:
    """A point for each run; nothing if they do not have the same metric of the same data."""
    metric = next(iter(_tested(runs[0])), None)
    points = [(run, cost.bytes.sparse, _tested(run).get(str(metric))) for run, cost in zip(runs, costs)]
    known = [(run, size, value) for run, size, value in points if size and value is not None]
    if metric is None or len(known) < 2 or len({run.dataset for run, _, _ in known}) > 1:
        return []
    series = [Series(run.name, [size], [value], run.style) for run, size, value in known]
    sizes = [size for _, size, _ in known]
    x = Axis("bytes of weights and indices", is_log=max(sizes) > _FAR * min(sizes), from_zero=True)
    better = "down" if is_lower_better(metric) else "up"
    words = f"Further {better} is better, and further left is smaller."
    popular = _popular(known[0][0]).get(metric)
    if popular is not None:
        ends = [min(sizes) if x.is_log else 0, max(sizes)]
        series.append(Series(_POPULAR, ends, [popular, popular], BASELINE))
        words += " The line is a list of the most popular items, which has no weights."
    y = Axis(f"test {metric}", from_zero=popular is not None)
    drawn = lines(series, x, y, "Quality against bytes")
    return [Figure("Quality against bytes", words, drawn, legend_of(series))]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else str(timedelta(seconds=round(seconds)))
