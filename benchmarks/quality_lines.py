"""The lines of results/quality.jsonl: what a run was, and which runs a table takes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
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


def best_of(lines: Iterable[Line]) -> Run:
    """The run with the best NDCG@10 on the validation data, the first of equals."""
    return Run.of(max(lines, key=lambda line: line["valid_ndcg"]))


def chosen_lines(lines: Iterable[Line]) -> list[Line]:
    """The lines that were trained with what their method's grid chose.

    The grid is the lines of the density and seed for which there are the most learning rates and weight decays.
    """
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        groups.setdefault((line["model"], line["dataset"], line["method"], line["epochs"]), []).append(line)
    chosen = []
    for group in groups.values():
        grids: dict[tuple, list[Line]] = {}
        for line in group:
            grids.setdefault((line["density"], line["seed"]), []).append(line)
        best = best_of(max(grids.values(), key=len))
        settings = best.learning_rate, best.weight_decay
        chosen += [line for line in group if (line["learning_rate"], line["weight_decay"]) == settings]
    return chosen
