"""The time of a training step with a softmax over all items, and its memory, by the size of the catalogue.

    python -m benchmarks.full_softmax --threads 1
    python -m benchmarks.full_softmax --threads 1 --models MultiVAE --items 50000 200000 --tables time memory

The batches are made up, so that no dataset of a million items has to be read: histories of 50 items of power-law
popularity for sequential models, users of 50 items for autoencoders.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.alternate import alternate, time_cells
from benchmarks.peak import in_fresh_process, peak_bytes, resident_bytes
from benchmarks.power_law import popular_ranks
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import SIDE_NAMES, add_device, make_config, make_trainer, on_device, wait

TRAINED = ("stock", "stock_fused", "ours")
# far beyond what is run here, so that no topology update falls within
_TOTAL_STEPS = 10**9
_HISTORY = 50


class Catalogue:
    """As much of a RecBole dataset as the constructors of these models ask for."""

    def __init__(self, users: int, items: int, history: np.ndarray | None = None):
        self._sizes, self._history = {"user_id": users, "item_id": items}, history

    def num(self, field: str) -> int:
        return self._sizes[field]

    def history_item_matrix(self):
        """Of each user the items, (users, length), their values, and how many there are."""
        items = torch.from_numpy(self._history)
        return items, torch.ones(items.shape), torch.full((len(items),), items.shape[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table, a row for each model, size and side."""
    parser = argparse.ArgumentParser(prog="benchmarks.full_softmax", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=("time", "memory"), default=("time",))
    parser.add_argument("--models", nargs="+", default=["SASRec", "GRU4Rec"])
    parser.add_argument("--items", type=int, nargs="+", default=[100_000])
    parser.add_argument("--sides", nargs="+", choices=TRAINED, default=TRAINED)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--density", type=float, default=0.1)
    add_device(parser)
    options = parse(parser, arguments)
    if options.device == "cuda" and "memory" in options.tables:
        parser.error("--tables memory: is of a process, on the CPU")
    given = {
        **on_device(options),
        "density": options.density,
        "train_batch_size": options.batch,
        "update_interval": 1000,
    }
    for table in options.tables:
        _PRINTERS[table](options, given)


def _print_times(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    print_header(
        "A training step with a softmax over all items",
        options,
        f"{_what(options)} A step is the loss, its backward pass and the optimizer; anomaly detection is off. "
        f"Runs are interleaved, {options.rounds} rounds of {options.steps}.",
    )
    rows = []
    for model, items in _cases(options):
        sides = {
            side: partial(_round, _prepared(side, model, items, given), options.steps) for side in options.sides
        }
        times = alternate(sides, options.rounds)
        for side in options.sides:
            rows.append(
                [model, f"{items:,}", SIDE_NAMES[side], *time_cells(times[side], times.get("stock"), digits=0)]
            )
    print_table(["model", "items", "side", "median ms", "min - max", "RecBole / this"], rows)


def _print_memory(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    print_header(
        "Memory of training with a softmax over all items",
        options,
        f"{_what(options)} Resident memory of a process of its own: what two steps leave of the model, its "
        "gradients and moments, and what a third takes besides at its peak.",
    )
    rows = []
    for model, items in _cases(options):
        found = {side: in_fresh_process(memory_of, side, model, items, given) for side in options.sides}
        whole = {side: sum(own.values()) for side, own in found.items()}
        for side, own in found.items():
            share = f"{whole[side] / whole['stock']:.3f}" if "stock" in whole else "-"
            rows.append([model, f"{items:,}", SIDE_NAMES[side], *(f"{n / 1e6:,.0f}" for n in own.values()), share])
    print_table(["model", "items", "side", "kept, MB", "a step, MB", "both / RecBole's"], rows)


_PRINTERS = {"time": _print_times, "memory": _print_memory}


def _what(options: argparse.Namespace) -> str:
    return (
        f"RecBole's defaults, D = 64 where that is one, density {options.density}, batch {options.batch:,}, Adam, "
        f"histories of {_HISTORY} items. No topology update falls within."
    )


def _cases(options: argparse.Namespace) -> list[tuple[str, int]]:
    return [(model, items) for model in options.models for items in options.items]


def memory_of(side: str, model: str, items: int, given: Mapping[str, Any]) -> dict[str, int]:
    """Bytes that two steps leave behind, and the most that a third takes besides."""
    held: list[Callable[[], None]] = []

    def train() -> None:
        held.append(_prepared(side, model, items, given))
        held[0]()
        held[0]()

    # what is loaded and compiled on the way is not the model's
    _prepared(side, model, 2000, given)()
    before = resident_bytes()
    train()
    kept = resident_bytes() - before
    return {"kept": kept, "step": peak_bytes(held[0])}


def _prepared(side: str, model: str, items: int, given: Mapping[str, Any]) -> Callable[[], None]:
    """A training step."""
    given = {**given, "train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": _HISTORY}
    config = make_config(model, "catalogue", given)
    # importing any sequential model turns it on
    torch.autograd.set_detect_anomaly(False)
    random, batch = np.random.default_rng(0), given["train_batch_size"]
    history = popular_ranks(random, items - 1, batch * _HISTORY).reshape(batch, _HISTORY) + 1
    trainer = make_trainer(side, config, Catalogue(batch, items, history), _TOTAL_STEPS)
    interaction = {
        "user_id": torch.arange(batch),
        "item_id_list": torch.from_numpy(history),
        "item_length": torch.full((batch,), _HISTORY),
        "item_id": torch.from_numpy(popular_ranks(random, items - 1, batch) + 1),
    }
    interaction = {name: tensor.to(config["device"]) for name, tensor in interaction.items()}
    trainer.model.train()

    def step() -> None:
        trainer.optimizer.zero_grad()
        trainer.model.calculate_loss(interaction).backward()
        trainer.optimizer.step()

    return step


def _round(step: Callable[[], None], steps: int) -> float:
    start = perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (perf_counter() - start) / steps


if __name__ == "__main__":
    main()
