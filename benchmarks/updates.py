"""The share of training time that topology updates take.

    python -m benchmarks.updates --threads 2
    python -m benchmarks.updates --threads 2 --update_interval 229 --rounds 9

Measured twice: inside the topology, and against a training whose topology is fixed.
"""

import argparse
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from recbole.trainer import Trainer

from benchmarks.alternate import alternate, time_cells
from benchmarks.power_law import ensure_power_law
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import FirstBatches, add_device, load, make_config, make_trainer, on_device, wait
from recbole_dsl.topology.gradients import GradientBuffer


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the time of an interval of training with and without its topology update."""
    parser = argparse.ArgumentParser(prog="benchmarks.updates", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="users + items")
    parser.add_argument("--interactions", type=float, default=1.5, help="interactions per row")
    parser.add_argument("--update_interval", type=int, default=1000)
    parser.add_argument("--grow_window", type=int, help="by default that of recbole_dsl")
    parser.add_argument("--side", choices=("ours", "ours_sparse_adam"), default="ours")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--embedding_size", type=int, default=64)
    add_device(parser)
    options = parse(parser, arguments)
    trainers, batches = _trainers(options)
    inside = _time_inside(trainers["dynamic"])
    sides = {name: _training(trainer, batches[name]) for name, trainer in trainers.items()}
    times = alternate(sides, options.rounds)
    # like the times, without the round that warms up
    counted = sum(inside[options.update_interval :])
    share_inside = counted / sum(times["dynamic"].seconds)
    share_beside = 1 - times["fixed"].median / times["dynamic"].median
    print_header(
        "Topology updates in the time of training",
        options,
        f"BPR, D = {options.embedding_size}, density {options.density}, {options.rows:,} rows (users and items), "
        f"batch {options.batch:,}, RecBole's loader, {options.side}; update_interval={options.update_interval:,}, "
        f"grow_window={trainers['dynamic'].topology.grow_window}. A round is {options.update_interval:,} steps "
        f"and with them one update; runs are interleaved, {options.rounds} rounds.",
        f"Inside the topology, collecting gradients included: {share_inside:.2%} of the training time. By the "
        f"difference of the medians: {share_beside:.2%}.",
    )
    print_table(
        ["topology", "median s", "min - max", "fixed / this"],
        [[name, *time_cells(times[name], times["fixed"], 1.0, 3)] for name in times],
    )


def _trainers(options: argparse.Namespace) -> tuple[dict[str, Trainer], dict[str, FirstBatches]]:
    users = options.rows // 2
    interactions = max(round(options.interactions * options.rows), options.rows - users)
    dataset = ensure_power_law(options.data_path, users, options.rows - users, interactions)
    settings = {
        **on_device(options),
        "data_path": options.data_path,
        "embedding_size": options.embedding_size,
        "train_batch_size": options.batch,
        "density": options.density,
        "update_interval": options.update_interval,
        "grow_window": options.grow_window,
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "RO", "group_by": None, "mode": "full"},
    }
    train_data, _, _ = load(make_config("BPR", dataset, settings))
    # so many that every round has its update
    steps = 2 * (options.rounds + 1) * options.update_interval
    trainers, batches = {}, {}
    for topology in ("dynamic", "fixed"):
        config = make_config("BPR", dataset, {**settings, "topology": topology})
        trainers[topology] = make_trainer(options.side, config, train_data._dataset, steps)
        batches[topology] = FirstBatches(train_data, options.update_interval)
    return trainers, batches


def _time_inside(trainer: Trainer) -> list[float]:
    """Seconds that the topology takes in and after each step of ``trainer``; the list fills as it trains."""
    seconds: list[float] = []
    after_step, add, collecting = trainer.topology._after_step, GradientBuffer.add, [0.0]

    def timed(optimizer: torch.optim.Optimizer) -> None:
        start = perf_counter()
        after_step(optimizer)
        wait()
        seconds.append(perf_counter() - start + collecting[0])
        collecting[0] = 0.0

    def timed_add(*arguments) -> None:
        start = perf_counter()
        add(*arguments)
        wait()
        collecting[0] += perf_counter() - start

    trainer.topology._after_step, GradientBuffer.add = timed, timed_add
    return seconds


def _training(trainer: Trainer, batches: FirstBatches) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        trainer._train_epoch(batches, 0)
        wait()
        return perf_counter() - start

    return run


if __name__ == "__main__":
    main()
