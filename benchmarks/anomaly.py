"""The time of a step of a sequential model, with PyTorch's anomaly detection as RecBole leaves it, and off.

    python -m benchmarks.anomaly --threads 1

Importing any sequential model of RecBole imports its SINE, which turns the detection on for the process.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch

from benchmarks.alternate import alternate, time_cells
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import SIDE_NAMES, FirstBatches, load, make_config, make_trainer

_TOTAL_STEPS = 10**9


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table, a row for each side."""
    parser = argparse.ArgumentParser(prog="benchmarks.anomaly", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SASRec")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parse(parser, arguments)
    sides: dict[tuple[str, bool], Callable[[], float]] = {}
    for side in ("stock", "ours"):
        trainer, batches = _prepare(side, options)
        for is_on in (True, False):
            sides[side, is_on] = partial(_round, trainer, batches, is_on)
    times = alternate(sides, options.rounds)
    print_header(
        "Anomaly detection",
        options,
        f"{options.model} on {options.dataset}, its defaults, batch {options.batch}, histories of 50; "
        f"runs are interleaved, {options.rounds} rounds of {options.steps} steps each.",
    )
    print_table(
        ["side", "anomaly detection", "median ms a step", "min - max", "with it / this"],
        [
            [SIDE_NAMES[side], "on" if is_on else "off", *time_cells(times[side, is_on], times[side, True])]
            for side, is_on in sides
        ],
    )


def _prepare(side: str, options: argparse.Namespace) -> tuple[Any, FirstBatches]:
    given = {
        "density": 0.1,
        "train_batch_size": options.batch,
        "data_path": options.data_path,
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": 50,
    }
    config = make_config(options.model, options.dataset, given)
    train_data, _, _ = load(config)
    trainer = make_trainer(side, config, train_data._dataset, _TOTAL_STEPS)
    return trainer, FirstBatches(train_data, options.steps)


def _round(trainer: Any, batches: FirstBatches, is_on: bool) -> float:
    before = torch.is_anomaly_enabled()
    torch.autograd.set_detect_anomaly(is_on)
    try:
        start = perf_counter()
        trainer._train_epoch(batches, 0, show_progress=False)
        return (perf_counter() - start) / len(batches)
    finally:
        torch.autograd.set_detect_anomaly(before)


if __name__ == "__main__":
    main()
