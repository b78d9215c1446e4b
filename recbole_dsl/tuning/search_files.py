"""The files of a search: what it is, the table of its trials, and the best of them."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from recbole_dsl.compat.option_places import names_a_place
from recbole_dsl.errors import DSLError, one_line, shown
from recbole_dsl.files import copy_whole, refuse_inputs, require_writable, write_text
from recbole_dsl.tuning.trial import FAILED, FINISHED, STOPPED, Trial

SEARCH, TABLE, PLOT = "search.json", "trials.jsonl", "plot.html"
BEST_OPTIONS, BEST_MODEL, BEST_RESULT = "best.yaml", "best.pth", "best.json"


class SearchFolder:
    """The folder of a search. Each of its files is written whole or not at all, and read as data.

    Args:
        path: an empty folder, one that does not exist yet, or that of the same search, which is then resumed.
        search: what the search is, as plain data: all that the result of a trial depends on.
        inputs: files that the search reads, which it must not overwrite.

    Raises:
        DSLError: if the folder has other files, is that of another search, or has one of ``inputs``. Nothing is
            written yet.
    """

    def __init__(self, path: str, search: Mapping[str, Any], inputs: Iterable[str | None] = ()):
        self.path = os.path.abspath(path)
        self._search = json.loads(json.dumps(search))
        self._goes_on = self._has_this_search()
        inputs = list(inputs)
        for name in (SEARCH, TABLE, PLOT, BEST_OPTIONS, BEST_MODEL, BEST_RESULT):
            refuse_inputs(self.file(name), "output", inputs)

    def begin(self) -> None:
        """Make the folder if there is none, and note what the search is.

        Raises:
            DSLError: if it cannot be written.
        """
        require_writable(self.path, "output")
        if not self._goes_on:
            write_text(self.file(SEARCH), json.dumps(self._search, indent=1) + "\n", "output")

    def file(self, *names: str) -> str:
        return os.path.join(self.path, *names)

    def trial_folder(self, name: int | str) -> str:
        """The folder of the trial ``name``: its number, with a suffix if that is taken."""
        return self.file("trials", str(name))

    def copy(self, source: str, name: str) -> None:
        """Copy a file into the folder, under ``name``."""
        copy_whole(source, self.file(name), "output")

    def write_trials(self, trials: Iterable[Trial]) -> None:
        rows = sorted(trials, key=lambda trial: trial.trial)
        write_text(self.file(TABLE), "".join(json.dumps(row.to_dict()) + "\n" for row in rows), "output")

    def read_trials(self) -> list[Trial]:
        """The trials in the table.

        Raises:
            DSLError: if it is not the table of a search.
        """
        if not os.path.isfile(self.file(TABLE)):
            return []
        try:
            with open(self.file(TABLE), encoding="utf-8") as table:
                return [_row(json.loads(line)) for line in table]
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DSLError(f"output={self.path}: {TABLE} must be the table of a search: {shown(error)}") from error

    def write_best_options(self, trial: Trial) -> None:
        """Write the options of the best trial so far, for ``--config_files``."""
        model, dataset = self._search["model"], self._search["dataset"]
        shared = {k: v for k, v in self._search["options"].items() if k == "data_path" or not names_a_place(k)}
        command = f"recbole-dsl train --model={model} --dataset={dataset} --config_files={self.file(BEST_OPTIONS)}"
        text = yaml.safe_dump({**shared, **trial.options}, allow_unicode=True, sort_keys=False)
        write_text(self.file(BEST_OPTIONS), f"# {one_line(command)}\n{text}", "output")

    def write_best(self, trial: Trial, test_result: Mapping[str, float]) -> None:
        """Write the model of the best trial, and its row with the result on the test data."""
        self.copy(self.file(trial.file), BEST_MODEL)
        content = {**trial.to_dict(), "test": dict(test_result)}
        write_text(self.file(BEST_RESULT), json.dumps(content, indent=1) + "\n", "output")

    def _has_this_search(self) -> bool:
        if is_free(self.path):
            return False
        try:
            with open(self.file(SEARCH), encoding="utf-8") as file:
                before = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            raise DSLError(
                f"output={self.path}: must be empty, not there yet, or the folder of a search, which then goes on"
            ) from error
        before = before if isinstance(before, dict) else {}
        for name in {**self._search, **before}:
            if before.get(name) != self._search.get(name):
                one, other = (shown(json.dumps(search.get(name))) for search in (before, self._search))
                raise DSLError(f"output={self.path}: holds another search: its {name} is {one}, not {other}")
        return True


def is_free(folder: str) -> bool:
    """Whether ``folder`` is empty, or not there."""
    return not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder))


def _row(row: dict[str, Any]) -> Trial:
    trial = Trial(**row)
    numbers = [trial.score, *trial.valid.values()]
    if not (
        type(trial.trial) is int
        and trial.trial > 0
        and trial.status in (FINISHED, STOPPED, FAILED)
        and isinstance(trial.options, dict)
        and all(type(number) in (int, float) or trial.status == FAILED for number in numbers)
        and type(trial.epochs) is int
    ):
        raise ValueError(f"trial {trial.trial!r} is not of one")
    parts = (trial.file or "").split("/")
    if trial.status != FAILED and (any(part in ("", ".", "..") for part in parts) or "\\" in trial.file):
        raise ValueError(f"{trial.file!r} is no file of the search")
    return trial
