"""The time of a training step of LightGCN, at density 0.1 beside density 1, by size of the graph.

python -m benchmarks.graphs --threads 1 --datasets ml-1m
python -m benchmarks.graphs --threads 1 --nodes 200000 1000000 --datasets
"""

import argparse
from collections.abc import Sequence

from benchmarks.alternate import alternate, time_cells
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

_SIDES = ("ours_dense_fast_graph", "ours_fast_graph")
# far beyond what is run here, so that no topology update falls within
_TOTAL_STEPS = 10**9


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table, a row for each graph and side."""
    parser = argparse.ArgumentParser(prog="benchmarks.graphs", description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="*", default=["ml-1m"])
    parser.add_argument("--nodes", type=int, nargs="*", default=[], help="users + items of generated data")
    parser.add_argument("--interactions", type=float, default=5, help="generated interactions per node")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=3, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    add_device(parser)
    options = parse(parser, arguments)
    names = [*options.datasets]
    sizes = [(n // 2, n // 2, round(n * options.interactions)) for n in options.nodes]
    names += [ensure_power_law(options.data_path, *size) for size in sizes]
    rows = [row for name in names for row in _rows(name, options)]
    print_header(
        "A training step of LightGCN",
        options,
        f"D = 64, three layers, batch {options.batch:,}, Adam, fast_graph=True on both sides, interleaved, "
        f"{options.rounds} rounds of {options.steps} steps each. No topology update falls within.",
    )
    print_table(["dataset", "nodes", "side", "median ms", "min - max", "density 1 / this"], rows)


def _rows(dataset: str, options: argparse.Namespace) -> list[list[str]]:
    settings = {
        **on_device(options),
        "data_path": options.data_path,
        "load_col": {"inter": ["user_id", "item_id"]},
        "embedding_size": 64,
        "n_layers": 3,
        "train_batch_size": options.batch,
        "density": 0.1,
        "update_interval": 1000,
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "RO", "group_by": None, "mode": "full"},
    }
    train_data, _, _ = load(make_config("LightGCN", dataset, settings))
    data, sides = train_data._dataset, {}
    for side in _SIDES:
        trainer = make_trainer(side, make_config("LightGCN", dataset, settings), data, _TOTAL_STEPS)
        sides[side] = step_timer(trainer, FirstBatches(train_data, options.steps))
    times = alternate(sides, options.rounds)
    nodes = f"{data.user_num + data.item_num:,}"
    return [[dataset, nodes, SIDE_NAMES[side], *time_cells(times[side], times[_SIDES[0]])] for side in _SIDES]


if __name__ == "__main__":
    main()
