"""The time of a whole epoch, and of a full-sort evaluation of all users, on a dataset of RecBole.

    python -m benchmarks.epochs --threads 2 --model BPR
    python -m benchmarks.epochs --threads 2 --model LightGCN --rounds 3 --no_evaluation

The second takes most of its time for RecBole's own side.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from recbole.trainer import Trainer

from benchmarks.alternate import alternate, time_cells
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import (
    SIDE_NAMES,
    SIDES,
    FirstBatches,
    add_device,
    load,
    make_config,
    make_trainer,
    on_device,
    wait,
)
from recbole_dsl.training.model_state import drop_caches

_PROPERTIES = Path(__file__).parent.parent / "properties"
_DENSITY, _UPDATE_INTERVAL = 0.1, 200
_SIDES = {"LightGCN": ("stock", "ours_dense_fast_graph", "ours_fast_graph")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of epochs and one of evaluations, a row for each side."""
    parser = argparse.ArgumentParser(prog="benchmarks.epochs", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="BPR")
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="by default those that the model has a use for")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--eval_batch_size", type=int, nargs="+", default=[409_600, 4096])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, help="cut the epoch to its first batches, for a trial")
    parser.add_argument("--no_evaluation", action="store_true", help="print the table of epochs only")
    add_device(parser)
    options = parse(parser, arguments)
    options.sides = options.sides or _SIDES.get(options.model, ("stock", "ours"))
    trainers, train_data = _trainers(options)
    _print_epochs(options, trainers, train_data)
    for eval_batch_size in () if options.no_evaluation else options.eval_batch_size:
        _print_evaluations(options, trainers, eval_batch_size)


def _config(options: argparse.Namespace, eval_batch_size: int):
    file = _PROPERTIES / f"{options.model}-ml-1m.yaml"
    settings = {
        **on_device(options),
        "data_path": options.data_path,
        "train_batch_size": options.batch,
        "eval_batch_size": eval_batch_size,
        "density": _DENSITY,
        "update_interval": _UPDATE_INTERVAL,
    }
    return make_config(options.model, options.dataset, settings, (str(file),) if file.exists() else ())


def _trainers(options: argparse.Namespace) -> tuple[dict[str, Trainer], object]:
    train_data, _, _ = load(_config(options, options.eval_batch_size[0]))
    trainers = {}
    for side in options.sides:
        config = _config(options, options.eval_batch_size[0])
        steps = config["epochs"] * len(train_data)
        trainers[side] = make_trainer(side, config, train_data._dataset, steps)
    return trainers, train_data


def _print_epochs(options: argparse.Namespace, trainers: dict[str, Trainer], train_data) -> None:
    batches = FirstBatches(train_data, options.batches) if options.batches else train_data
    times = alternate(
        {side: _timed(lambda t=trainer: t._train_epoch(batches, 0)) for side, trainer in trainers.items()},
        options.rounds,
    )
    print_header(
        f"An epoch of {options.model} on {options.dataset}",
        options,
        f"Settings of properties/{options.model}-ml-1m.yaml, if there is such a file, but a batch of "
        f"{options.batch:,}, {len(batches):,} steps an epoch, density {_DENSITY} and a topology update every "
        f"{_UPDATE_INTERVAL} steps. Runs are interleaved, {options.rounds} rounds.",
    )
    _print(trainers, times)


def _print_evaluations(options: argparse.Namespace, trainers: dict[str, Trainer], eval_batch_size: int) -> None:
    train_data, valid_data, _ = load(_config(options, eval_batch_size))
    for trainer in trainers.values():
        trainer.eval_collector.data_collect(train_data)
    times = alternate(
        {side: _timed(lambda t=trainer: _evaluate(t, valid_data)) for side, trainer in trainers.items()},
        options.rounds,
    )
    users = len(valid_data.uid_list)
    print_header(
        f"A full-sort evaluation of {options.model} on {options.dataset}",
        options,
        f"{users:,} users against all items, eval_batch_size={eval_batch_size} ({len(valid_data):,} batches), the "
        f"metrics of these settings. Runs are interleaved, {options.rounds} rounds.",
    )
    _print(trainers, times)


def _evaluate(trainer: Trainer, valid_data) -> None:
    # what a model keeps between batches must not be kept from one evaluation to the next
    drop_caches(trainer.model)
    trainer.evaluate(valid_data, load_best_model=False)


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        work()
        wait()
        return perf_counter() - start

    return run


def _print(trainers, times) -> None:
    rows = [[SIDE_NAMES[s], *time_cells(times[s], times.get("stock"), 1.0, 3)] for s in trainers]
    print_table(["side", "median s", "min - max", "RecBole / this"], rows)


if __name__ == "__main__":
    main()
