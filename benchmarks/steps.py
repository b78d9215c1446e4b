"""The time of a training step of BPR, with RecBole's own loader, by size of the tables.

    python -m benchmarks.steps --threads 2
    python -m benchmarks.steps --threads 2 --rows 1000000 4000000 --sides ours ours_weight_decay ours_sparse_adam

At 4 M rows the dense sides together take 13 GB: leave them out, as here.
"""

import argparse
from collections.abc import Callable, Sequence
from time import perf_counter

from benchmarks.alternate import Times, alternate, time_cells
from benchmarks.power_law import ensure_power_law
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import (
    SIDE_NAMES,
    FirstBatches,
    add_device,
    load,
    make_config,
    make_trainer,
    on_device,
    step_timer,
)

TRAINED = ("stock", "stock_fused", "masked_dense", "ours", "ours_weight_decay", "ours_sparse_adam")
# far beyond what is run here, so that no topology update falls within
_TOTAL_STEPS = 10**9


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table, a row for each size and side."""
    parser = argparse.ArgumentParser(prog="benchmarks.steps", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="users + items")
    parser.add_argument("--interactions", type=float, default=1.5, help="interactions per row")
    parser.add_argument("--sides", nargs="+", choices=TRAINED, default=TRAINED)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--embedding_size", type=int, default=64)
    add_device(parser)
    options = parse(parser, arguments)
    sides: dict[tuple[int, str], Callable[[], float]] = {}
    seconds_to_load = {}
    for rows in options.rows:
        start = perf_counter()
        sides.update(_sides_of(rows, options))
        seconds_to_load[rows] = perf_counter() - start
    times = alternate(sides, options.rounds)
    print_header(
        "A training step",
        options,
        f"BPR, D = {options.embedding_size}, density {options.density}, batch {options.batch:,}, Adam; "
        f"{options.interactions:g} generated interactions per row, users and items in equal number. A step is "
        "RecBole's loader with its negative sampling, forward, backward, optimizer and reading the loss. "
        f"Runs are interleaved, {options.rounds} rounds of {options.steps} steps each. No topology update falls "
        "within: see benchmarks.updates. "
        + "; ".join(f"{rows:,} rows: {s:.0f} s to load and build all sides" for rows, s in seconds_to_load.items())
        + ".",
    )
    smallest = min(options.rows)
    print_table(
        ["rows", "side", "median ms", "min - max", "RecBole / this", "this / the same at the fewest rows"],
        [_row(key, times, smallest) for key in sides],
    )


def _sides_of(rows: int, options: argparse.Namespace) -> dict[tuple[int, str], Callable[[], float]]:
    users = rows // 2
    interactions = max(round(options.interactions * rows), rows - users)
    dataset = ensure_power_law(options.data_path, users, rows - users, interactions)
    settings = {
        **on_device(options),
        "data_path": options.data_path,
        "embedding_size": options.embedding_size,
        "train_batch_size": options.batch,
        "density": options.density,
        "update_interval": 1000,
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "RO", "group_by": None, "mode": "full"},
    }
    train_data, _, _ = load(make_config("BPR", dataset, settings))
    sides = {(rows, "loader"): _loading(FirstBatches(train_data, options.steps))}
    for side in options.sides:
        trainer = make_trainer(side, make_config("BPR", dataset, settings), train_data._dataset, _TOTAL_STEPS)
        sides[rows, side] = step_timer(trainer, FirstBatches(train_data, options.steps))
    return sides


def _loading(batches: FirstBatches) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        for _ in batches:
            pass
        return (perf_counter() - start) / len(batches)

    return run


def _row(key: tuple[int, str], times: dict[tuple[int, str], Times], smallest: int) -> list[str]:
    rows, side = key
    reference = None if side == "loader" else times.get((rows, "stock"))
    growth = f"{times[key].median / times[smallest, side].median:.2f}"
    name = {**SIDE_NAMES, "loader": "of it, RecBole's loader"}[side]
    return [f"{rows:,}", name, *time_cells(times[key], reference), growth]


if __name__ == "__main__":
    main()
