"""SIGKILL in each night of examples/nightly: the models, artifacts and pages are those of nights without."""

import importlib
import os
import random
import runpy
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from tests.faults.command import Row
from tests.faults.forks import start, wait
from tests.faults.kills import difference

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "nightly"
# what the children, which are forked, need not import again
_IMPORTED = (
    "torch.distributed.fsdp",
    "recbole.model.general_recommender",
    "recbole_dsl.export.exporting",
    "recbole_dsl.report.writing",
)
# beside these a checkpoint has names and times of its run
_PARTS = (
    "state_dict optimizers topology random_state rows trained_on best_valid_result nights epoch shapes".split()
)


def run() -> Iterator[Row]:
    """Ten nights."""
    yield from kill(10)


def kill(nights: int, seed: int = 0, **sizes: int) -> Iterator[Row]:
    """A row for each of so many nights, of days of the ``sizes`` that days.py takes."""
    for name in _IMPORTED:
        importlib.import_module(name)
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as parent:
        whole, parts = (Path(parent, name) for name in ("whole", "parts"))
        for folder in (whole, parts):
            runpy.run_path(str(EXAMPLE / "days.py"))["write_days"](folder / "shop", nights, **sizes)
        for number in range(1, nights + 1):
            day = f"day-{number:02}"
            began = time.monotonic()
            code = wait(_begin(whole, day))
            length = time.monotonic() - began
            if code:
                yield Row(f"{day}: the night itself", (whole / "log.txt").read_text()[-500:])
                return
            child = _begin(parts, day)
            time.sleep(draw.uniform(0.0, length))
            os.kill(child, signal.SIGKILL)
            wait(child)
            code = wait(_begin(parts, day))
            wrong = f"exit code {code}: {(parts / 'log.txt').read_text()[-500:]}" if code else None
            yield Row(day, wrong or _unlike(whole / "shop", parts / "shop", day))


def _begin(folder: Path, day: str) -> int:
    """Start the night of ``day`` in ``folder``; returns the process's number."""

    def work() -> None:
        torch.set_num_threads(1)
        night = runpy.run_path(str(EXAMPLE / "nightly.py"))["night"]
        # a night of some epochs, of which each may be the one that is killed
        night("shop", day, window=3, epochs=3, embedding_size=16, train_batch_size=256)

    return start(work, folder, folder / "log.txt")


def _unlike(whole: Path, parts: Path, day: str) -> str | None:
    found = []
    for shop in (whole, parts):
        files = {file.suffix: file for file in (shop / "nights" / day).iterdir() if not file.name.startswith(".")}
        left = set(files) - {".pth", ".last", ".inter", ".rdsl", ".html", ""}
        if left:
            return f"left behind: {sorted(left)}"
        found.append(files)
    for suffix in (".pth", ".last"):
        one, other = (read_checkpoint(str(files[suffix])) for files in found)
        where = next((where for part in _PARTS if (where := difference(one[part], other[part], part))), None)
        if where:
            return f"the {suffix} differ in {where}"
    served = [(shop / "model.rdsl").read_bytes() for shop in (whole, parts)]
    return None if served[0] == served[1] else "the artifacts differ"
