"""SIGKILL at random moments: nothing is lost, and the run ends as one that was never killed."""

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recbole_dsl.checkpoint.archive import damage
from tests.faults.command import Row
from tests.faults.forks import start, wait
from tests.tiny import write_tiny

_OF_A_RUN = ("run", "checkpoint_dir", "train_seconds", "valid_seconds")
_COMMON = (
    "--dataset=tiny", "--data_path=data", "--embedding_size=16", "--density=0.3", "--update_interval=7",
    "--grow_window=6", "--train_batch_size=64", "--stopping_step=99", "--show_progress=False",
)  # fmt: skip
_INTERACTIONS = "--load_col={'inter':['user_id','item_id']}"
_IN_TIME = "--load_col={'inter':['user_id','item_id','timestamp']}"


@dataclass(frozen=True)
class Run:
    """A training of some seconds that is killed so many times."""

    model: str
    options: tuple[str, ...]
    kills: int


RUNS = (
    Run("BPR", (_INTERACTIONS, "--epochs=60"), 20),
    Run("MultiVAE", (_INTERACTIONS, "--epochs=60", "--train_batch_size=8"), 10),
    Run(
        "SASRec", (_IN_TIME, "--epochs=12", "--n_layers=1", "--hidden_size=16", "--train_neg_sample_args=None"), 10
    ),
    Run("CKE", ("--epochs=15", "--kg_embedding_size=16"), 10),
)


def run() -> Iterator[Row]:
    """Kill each."""
    import recbole_dsl.training.quick_start  # noqa: F401

    for one in RUNS:
        yield from kill(one)


def kill(one: Run, seed: int = 0) -> Iterator[Row]:
    """A row for each kill, and one for how the run ended."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as parent:
        write_data(Path(parent))
        began = time.monotonic()
        whole = Path(parent, "whole")
        code = wait(begin(one, whole, resume=False))
        length = time.monotonic() - began
        if code:
            yield Row(f"{one.model}: the run itself", (whole / "log.txt").read_text()[-500:])
            return
        parts = Path(parent, "parts")
        for number in range(one.kills):
            child = begin(one, parts, resume=number > 0)
            time.sleep(draw.uniform(0.0, length / 2))
            os.kill(child, signal.SIGKILL)
            code = wait(child)
            yield Row(f"{one.model}, kill {number + 1}", _problem(parts, code))
        code = wait(begin(one, parts, resume=True))
        yield Row(f"{one.model}, the end", _unlike(whole, parts) if code == 0 else f"exit code {code}")


def write_data(folder: Path) -> None:
    """Put the dataset "tiny" where `kill` looks for it."""
    (folder / "data").mkdir()
    write_tiny(folder / "data" / "tiny")


def begin(one: Run, folder: Path, resume: bool) -> int:
    """Start it in ``folder``, beside the data; returns the process's number. Its output is in log.txt."""
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(folder.parent / "data")

    def work() -> None:
        from recbole_dsl import cli

        torch.set_num_threads(1)
        # a shell starts what is in its background with Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        given = {option.partition("=")[0] for option in one.options}
        common = [option for option in _COMMON if option.partition("=")[0] not in given]
        cli.main(["train", f"--model={one.model}", *common, *one.options, *(["--resume"] * resume)])

    return start(work, folder, folder / "log.txt")


def _problem(folder: Path, code: int) -> str | None:
    if code not in (-signal.SIGKILL, 0):
        return f"exit code {code}: {(folder / 'log.txt').read_text()[-300:]}"
    files = sorted((folder / "saved").iterdir()) if (folder / "saved").exists() else []
    if any(file.suffix not in (".pth", ".last") for file in files) or len(files) > 2:
        return f"left behind: {[file.name for file in files]}"
    return next((f"{file.name}: {wrong}" for file in files if (wrong := damage(str(file)))), None)


def _unlike(whole: Path, parts: Path) -> str | None:
    for suffix in ("pth", "last"):
        contents = []
        for folder in (whole, parts):
            (file,) = (folder / "saved").glob(f"*.{suffix}")
            contents.append(torch.load(file, weights_only=True))
        where = difference(*contents)
        if where:
            return f"the {suffix} differ in {where}"
    results = [_results(folder) for folder in (whole, parts)]
    return None if results[0] == results[1] else f"the results differ: {results}"


def _results(folder: Path) -> list[str]:
    lines = (folder / "log.txt").read_text().splitlines()
    return [line for line in lines if line.startswith("test ")]


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """Where two checkpoints differ, but for the names and times of the two runs; None if nowhere."""
    if isinstance(one, torch.Tensor):
        return None if one.dtype == other.dtype and torch.equal(one, other) else where
    if isinstance(one, dict):
        if set(one) != set(other):
            return where
        pairs = [(one[k], other[k], f"{where}.{k}") for k in one if k not in _OF_A_RUN]
    elif isinstance(one, list):
        if len(one) != len(other):
            return where
        pairs = [(*pair, f"{where}.{i}") for i, pair in enumerate(zip(one, other))]
    else:
        return None if one == other or (one != one and other != other) else where
    return next((found for pair in pairs if (found := difference(*pair))), None)
