"""The lines of results/quality.jsonl: what a run was, and which runs a table takes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """What one line was trained with; no two lines of a file have the same."""

    model: str
    dataset: str
    method: str
    density: float
    seed: int
    learning_rate: float
    weight_decay: float
    epochs: int

    @classmethod
    def of(cls, line: Line) -> "Run":
        return cls(**{f.name: line[f.name] for f in fields(cls)})

    def with_(self, **changes: Any) -> "Run":
        """This run with ``changes``."""
        return replace(self, **changes)


def read_lines(path: Path) -> list[Line]:
    """The lines of ``path``, none if there is no such file. One that a kill cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def append_line(path: Path, line: Line) -> None:
    """Add ``line`` to ``path``, on a line of its own even if a kill cut the last one short."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("a+") as file:
        file.seek(0)
        end = "" if file.read()[-1:] in ("", "\n") else "\n"
        file.write(f"{end}{json.dumps(line)}\n")


def score(line: Line, part: str) -> float:
    """The NDCG@10 of ``line`` on the ``part`` "valid" or "test", or the AUC of a context-aware model."""
    return line[f"{part}_auc" if f"{part}_auc" in line else f"{part}_ndcg"]


def stored(line: Line, values: str) -> tuple[int, float] | None:
    """The bytes and the test `score` of the model of ``line`` in float32, int8 or int4; None if not measured.

    Bytes are those of the weights, and of their indices if it has any.
    """
    if values == "float32":
        # the bytes of a dense model's line hold an index that it does without
        is_dense = line["method"].startswith(("dense", "small", "quotient", "deep"))
        return (4 * line["weights"] if is_dense else line["bytes"]), score(line, "test")
    if values not in line:
        return None
    one = line[values]
    return one["bytes"], one["auc" if "auc" in one else "ndcg"]


def best_first(lines: Iterable[Line]) -> list[Run]:
    """The runs of ``lines``, each once, by their `score` on the validation data, the first of equals before."""
    runs = {Run.of(line): score(line, "valid") for line in lines}
    return sorted(runs, key=runs.__getitem__, reverse=True)


def best_settings(lines: Iterable[Line]) -> dict[str, float]:
    """The learning rate and weight decay of the best mean `score` on the validation data, the first of equals.

    Those that were trained with fewer seeds than others are left out.
    """
    found: dict[tuple[float, float], dict[int, float]] = {}
    for line in lines:
        settings = line["learning_rate"], line["weight_decay"]
        found.setdefault(settings, {})[line["seed"]] = score(line, "valid")
    learning_rate, weight_decay = max(found, key=lambda s: (len(found[s]), mean(found[s].values())))
    return {"learning_rate": learning_rate, "weight_decay": weight_decay}


def chosen_lines(lines: Iterable[Line]) -> list[Line]:
    """The lines that were trained with what their method's grid chose.

    The grid is the lines of the density for which there are the most learning rates and weight decays.
    """
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        groups.setdefault((line["model"], line["dataset"], line["method"], line["epochs"]), []).append(line)
    chosen = []
    for group in groups.values():
        grids: dict[float, dict[tuple, Line]] = {}
        for line in group:
            grids.setdefault(line["density"], {})[line["learning_rate"], line["weight_decay"]] = line
        density = max(grids, key=lambda density: len(grids[density]))
        best = best_settings(line for line in group if line["density"] == density)
        chosen += [line for line in group if best.items() <= line.items()]
    return chosen
