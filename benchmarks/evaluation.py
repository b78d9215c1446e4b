"""The time of an evaluation alone, stock and ours in turns, on one set of interactions.

python -m benchmarks.evaluation --threads 1 --size 100000 50000 1000000 --users 5000
python -m benchmarks.evaluation --threads 1 --size 100000 1000000 2000000 --users 2000
python -m benchmarks.evaluation --threads 1 --dataset ml-1m --modes full uni100 pop100
"""

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import torch
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.trainer import Trainer

from benchmarks.alternate import alternate, time_cells
from benchmarks.power_law import ensure_power_law
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import SIDE_NAMES, add_device, load, make_config, make_trainer, on_device, wait

_SIDES = ("stock", "ours")
_DENSITY = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table: each mode of evaluation, stock and ours."""
    parser = argparse.ArgumentParser(prog="benchmarks.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="BPR")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument(
        "--size", type=int, nargs=3, metavar=("USERS", "ITEMS", "INTERACTIONS"), help="generated data instead"
    )
    parser.add_argument("--users", type=int, help="evaluate no more than the first so many")
    parser.add_argument("--modes", nargs="+", default=["full"], help="full, uni100, pop100 ...")
    parser.add_argument("--last", action="store_true", help="one item of each user, instead of a tenth of theirs")
    parser.add_argument("--rounds", type=int, default=3)
    add_device(parser)
    options = parse(parser, arguments)
    if options.size:
        options.dataset = ensure_power_law(options.data_path, *options.size)
    print_header(
        f"{options.model} on {options.dataset}: evaluation alone",
        options,
        f"RecBole's default metrics at 10, of weights as they are drawn; ours at density {_DENSITY}. Runs are "
        f"interleaved; {options.rounds} rounds after one that does not count.",
    )
    rows = []
    for mode in options.modes:
        rows += _rows(options, mode)
    print_table(["evaluation", "users", "s, median", "low - high", "RecBole / this", "NDCG@10"], rows)


def first_samples(loader: AbstractDataLoader, n: int) -> AbstractDataLoader:
    """``loader`` with its first ``n`` samples."""
    few = copy.copy(loader)
    n = min(n, loader.sample_size)
    batches = [part.tolist() for part in torch.arange(n).split(loader.step)]
    vars(few).update(sample_size=n, batch_sampler=batches, sampler=range(n))
    for name in {"uid_list", "user_df"} & vars(loader).keys():
        vars(few)[name] = getattr(loader, name)[:n]
    return few


def _rows(options: argparse.Namespace, mode: str) -> list[list[str]]:
    split = {"LS": "valid_and_test"} if options.last else {"RS": [0.8, 0.1, 0.1]}
    settings: dict[str, Any] = {
        "density": _DENSITY,
        "eval_args": {"split": split, "order": "RO", "group_by": "user", "mode": mode},
        **on_device(options),
    }
    if options.dataset != "ml-100k":
        settings["data_path"] = os.path.abspath(options.data_path)
    config = make_config(options.model, options.dataset, settings)
    train_data, _, test_data = load(config)
    if options.users:
        test_data = first_samples(test_data, options.users)
    results: dict[str, Any] = {}
    sides = {}
    for side in _SIDES:
        trainer = make_trainer(side, config, train_data._dataset, total_steps=1)
        trainer.eval_collector.data_collect(train_data)
        sides[side] = _timer(side, trainer, test_data, results)
    times = alternate(sides, options.rounds)
    return [
        [
            f"{mode}, {SIDE_NAMES[side]}",
            f"{test_data.sample_size:,}",
            *time_cells(times[side], times["stock"], unit=1),
            f"{results[side]['ndcg@10']:.4f}",
        ]
        for side in _SIDES
    ]


def _timer(side: str, trainer: Trainer, data: AbstractDataLoader, results: dict[str, Any]) -> Callable[[], float]:
    def run() -> float:
        start = perf_counter()
        results[side] = trainer.evaluate(data, load_best_model=False)
        wait()
        return perf_counter() - start

    return run


if __name__ == "__main__":
    main()
