"""The facts of a run: from its files, and from its data if that is there."""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader
from torch import Tensor, nn

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.checkpoint.run_record import RunRecord
from recbole_dsl.checkpoint.state_checks import is_update
from recbole_dsl.errors import DSLError
from recbole_dsl.measure.cost import Cost, measure_cost
from recbole_dsl.report.again import changed_options, command_of
from recbole_dsl.report.charts import MOST
from recbole_dsl.report.groups import Groups, Hits
from recbole_dsl.report.metrics import tested
from recbole_dsl.report.step_parts import StepParts, measure_step
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.topology.engine import TopologyUpdate
from recbole_dsl.training.data_start import sided_weights
from recbole_dsl.training.quick_start import load_data_and_model
from recbole_dsl.training.run_files import last_file
from recbole_dsl.training.scored_sample import scored_sample

# what a run is named by first, and how much of what differs
_NAMED, _MOST_NAMED = ("model", "dataset", "density", "start"), 3


@dataclass(frozen=True)
class TensorFacts:
    """A sparse tensor: its name and shape, the number of its alive weights, and of all weights."""

    name: str
    shape: tuple[int, ...]
    nnz: int
    numel: int


@dataclass(frozen=True)
class DataFacts:
    """The facts of a run that need its data.

    Attributes:
        fields: those of users and items; None where the data has none.
        tensors: the sparse ones.
        cost: dense beside sparse.
        groups: users by activity and items by popularity; None if the data has no users and items.
        hits: which test items are among the first ten; None if the evaluation does not rank all items.
        popular: the same of a list of the most popular items.
        tested: metric -> value on the test data, where the evaluation does not rank all items.
        widths: "user" and "item" -> the alive weights of each row, of all tables of that side together.
        parts: times of the parts of a training step; None if they could not be measured.
        lacks: for each that is None, why.
    """

    fields: tuple[str | None, str | None]
    tensors: list[TensorFacts]
    cost: Cost
    groups: Groups | None
    hits: Hits | None
    popular: Hits | None
    tested: Mapping[str, float]
    widths: Mapping[str, NDArray]
    parts: StepParts | None
    lacks: Mapping[str, str]


@dataclass
class RunFacts:
    """A run.

    Attributes:
        file: the checkpoint of its best epoch.
        name: distinct among the runs of a page.
        style: its class in the style sheet, the same in all figures.
        model, dataset: their names.
        density: the option.
        valid_metric: the metric that chose the best epoch.
        best_epoch: from 0.
        best_valid: metric -> value of the best epoch, on the validation data.
        record: losses, results and times of the epochs; empty for files of earlier versions.
        updates: every topology update.
        nights: what each warm start did.
        rows: whose rows the weights are.
        changed: the options that differ from the defaults.
        command: the command that trains it again.
        data: None if the data is missing, for the reason in ``without_data``.
    """

    file: str
    name: str
    model: str
    dataset: str
    density: float
    valid_metric: str
    best_epoch: int
    best_valid: dict[str, float]
    record: RunRecord
    updates: list[TopologyUpdate]
    nights: list[dict[str, Any]]
    rows: Mapping[str, Any]
    style: str = "s0"
    changed: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    data: DataFacts | None = None
    without_data: str = ""


def read_run(file: str, data_path: str | None = None) -> RunFacts:
    """The facts of the run whose best epoch is in ``file``.

    The epochs after the best one are read from the last state beside it, if that is there.

    Raises:
        DSLError: if it is not a whole checkpoint.
    """
    checkpoint = read_checkpoint(file)
    latest = checkpoint
    if os.path.isfile(last_file(file)) and last_file(file) != file:
        last = read_checkpoint(last_file(file))
        if last["run"] == checkpoint["run"] != "unknown" and last["epoch"] >= checkpoint["epoch"]:
            latest = last
    updates = latest["topology"].get("updates", [])
    if not isinstance(updates, list) or not all(map(is_update, updates)):
        raise DSLError(f"model_file={file}: does not fit the model: topology: updates must be records of updates")
    density = checkpoint["dsl"].get("density")
    facts = RunFacts(
        file=file,
        name="",
        model=checkpoint["model"],
        dataset=checkpoint["dataset"],
        density=density if isinstance(density, (int, float)) else math.nan,
        valid_metric=str(checkpoint["config"].get("valid_metric", "")).lower(),
        best_epoch=checkpoint["epoch"],
        best_valid=dict(checkpoint["best_valid_result"] or {}),
        record=RunRecord.of(latest["record"]),
        updates=[TopologyUpdate(**update) for update in updates],
        nights=checkpoint["nights"],
        rows=checkpoint["rows"],
    )
    # if today's RecBole refuses the options, all but them is shown
    with suppress(DSLError):
        facts.changed = changed_options(checkpoint, file)
        path = data_path or checkpoint["config"].get("data_path")
        facts.command = command_of(checkpoint, facts.changed, path)
    try:
        facts.data = _data_facts(file, checkpoint, facts, data_path)
    except DSLError as error:
        facts.without_data = str(error)
    return facts


def name_apart(runs: list[RunFacts]) -> None:
    """Give each run a colour, and a short name of what tells it from the others, numbered if nothing does."""
    facts: list[dict[str, str]] = []
    for run in runs:
        start = "warm start" if run.nights else "no warm start"
        options = {name: f"{name} {value}"[:40] for name, value in run.changed.items() if name != "topology"}
        density = f"density {run.density:g}"
        facts.append(options | {"model": run.model, "dataset": run.dataset, "start": start, "density": density})
    order = [*_NAMED, *sorted({name for known in facts for name in known} - set(_NAMED))]
    differing = [name for name in order if len({known.get(name) for known in facts}) > 1] or ["density"]
    ways = [
        [", ".join(known.get(name, f"{name} default") for name in differing[:count]) for known in facts]
        for count in range(1, _MOST_NAMED + 1)
    ]
    # the shortest of those that tell most runs apart
    names = max(ways, key=lambda way: len(set(way)))
    for number, (run, name) in enumerate(zip(runs, names)):
        run.style = f"s{number % MOST}"
        run.name = name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"


def _data_facts(file: str, checkpoint: Mapping[str, Any], facts: RunFacts, data_path: str | None) -> DataFacts:
    config, model, _, train, _, test = load_data_and_model(file, data_path)
    dataset = train._dataset
    lacks: dict[str, str] = {}
    groups = hits = popular = None
    values: Mapping[str, float] = {}
    if dataset.uid_field is not None and dataset.iid_field is not None:
        groups = Groups.of(dataset)
    if isinstance(test, FullSortEvalDataLoader) and groups:
        hits, popular = Hits.of(model, test), Hits.of_popularity(groups.counts["item"], test)
    else:
        lacks["hits"] = (
            "the test data is no full sort over all items" if groups else "the data has no users and items"
        )
        try:
            values = tested(config, model, train, test)
        except Exception as error:
            # a metric or a model may raise anything, and the rest of the page must not be lost
            lacks["tested"] = f"the test metrics could not be computed: {type(error).__name__}"
    forward, n_scored = scored_sample(dataset, config["device"])
    cost = measure_cost(
        model,
        _stored_optimizers(model, checkpoint),
        forward=forward,
        n_scored=n_scored,
        checkpoint=file,
        growth_bytes=facts.record.growth_bytes,
        record_bytes=_record_bytes(checkpoint["topology"]),
    )
    weights = sparse_weights(model)
    tensors = [TensorFacts(name, tuple(w.shape), w.nnz, w.numel) for name, w in weights.items()]
    widths: dict[str, NDArray] = {}
    for name, one in sided_weights(model, dataset).items():
        if one.is_table:
            own = weights[name].row_offsets.long().diff()[: one.n_members].cpu().numpy().astype(np.int64)
            widths[one.side] = widths[one.side] + own if one.side in widths else own
    parts = None
    try:
        parts = measure_step(config, model, train)
    except Exception as error:
        # a model may raise anything, and the rest of the page must not be lost
        lacks["parts"] = f"a step could not be measured: {type(error).__name__}"
    if parts is None:
        lacks.setdefault("parts", "the trainer of this model has steps of its own kind")
    fields = dataset.uid_field, dataset.iid_field
    return DataFacts(fields, tensors, cost, groups, hits, popular, values, widths, parts, lacks)


def _record_bytes(topology: Mapping[str, Any]) -> int:
    explored = topology.get("explored")
    bits = explored.values() if isinstance(explored, dict) else ()
    return sum(one.numel() for one in bits if isinstance(one, Tensor))


def _stored_optimizers(model: nn.Module, checkpoint: Mapping[str, Any]) -> list[Any]:
    """The optimizers, with their states by parameter, as `measure_cost` reads them."""
    parameters = list(model.parameters())
    found = []
    for state in checkpoint["optimizers"]:
        by_number = state.get("state", {})
        numbered = {number: parameters[number] for number in by_number if number in range(len(parameters))}
        found.append(SimpleNamespace(state={p: by_number[number] for number, p in numbered.items()}))
    return found
