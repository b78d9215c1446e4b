"""One epoch of BPR on millions of users and items, by the command: its time and its memory.

    python -m benchmarks.large --threads 2

What comes after --options goes to the command as it is: --options learner=sparse_adam
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.power_law import ensure_power_law
from benchmarks.report import parse, print_header, print_table

_COMMAND = Path(__file__).parent.parent / "run_recbole_dsl.py"
# a ranking metric would take a row of scores of all items for each user, by RecBole's own evaluator
_LIGHT_EVALUATION = {
    "eval_args": "{'split':{'RS':[0.998,0.001,0.001]},'order':'RO','group_by':None,'mode':'uni10'}",
    "metrics": "['AUC']",
    "valid_metric": "AUC",
}


@dataclass(frozen=True)
class Run:
    """What a run of the command took.

    Attributes:
        training: seconds of the first epoch's training, from RecBole's log.
        wall: seconds from start to end.
        peak: most resident bytes.
    """

    training: float
    wall: float
    peak: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the data if need be, run the command, print one table."""
    parser = argparse.ArgumentParser(prog="benchmarks.large", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=2_000_000)
    parser.add_argument("--interactions", type=int, default=15_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--embedding_size", type=int, default=64)
    parser.add_argument("--update_interval", type=int, default=1000)
    parser.add_argument("--options", nargs="*", default=[], help="more options of the command, name=value")
    options = parse(parser, arguments)
    name = "power-law-2M" if (options.users, options.items) == (2_000_000, 2_000_000) else ""
    dataset = ensure_power_law(options.data_path, options.users, options.items, options.interactions, name)
    given = {
        "model": "BPR",
        "dataset": dataset,
        "data_path": os.path.abspath(options.data_path),
        "epochs": 1,
        "train_batch_size": options.batch,
        "embedding_size": options.embedding_size,
        "density": options.density,
        "update_interval": options.update_interval,
        "show_progress": False,
        **_LIGHT_EVALUATION,
    }
    arguments = [f"--{name}={value}" for name, value in given.items()] + [f"--{o}" for o in options.options]
    run = run_command([*arguments, "--verbose"])
    shown = " ".join(a for a in arguments if not a.startswith("--data_path"))
    print_header(
        "Millions of users and items",
        options,
        f"{options.users:,} users, {options.items:,} items and {options.interactions:,} interactions of "
        f"power-law popularity; `run_recbole_dsl.py {shown}`. Evaluation is kept light: a thousandth of the "
        "interactions each for validation and test, ten negative items for each, AUC.",
    )
    print_table(
        ["seconds of training, one epoch", "seconds in all", "peak memory, GB"],
        [[f"{run.training:,.2f}", f"{run.wall:,.1f}", f"{run.peak / 1e9:.2f}"]],
    )


def run_command(arguments: Sequence[str]) -> Run:
    """Run the command in a directory of its own and measure it.

    Raises:
        RuntimeError: with the end of its output, if it fails.
    """
    threads = str(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        start = perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(_COMMAND), *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = perf_counter() - start
        output.seek(0)
        log = re.sub(r"\x1b\[[0-9;]*m", "", output.read().decode(errors="replace"))
    training = re.search(r"epoch 0 training \[time: ([0-9.]+)s", log)
    if process.returncode or not training:
        raise RuntimeError(f"exit status {process.returncode}: {log[-2000:]}")
    # kilobytes on Linux, bytes on macOS
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(float(training.group(1)), wall, usage.ru_maxrss * unit)


if __name__ == "__main__":
    main()
