"""The memory of sparse training, of its topology updates, its checkpoints and of building a sparse model.

    python -m benchmarks.memory --threads 2

Each number is measured in a process of its own. Linux only.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import memory_probes
from benchmarks.peak import in_fresh_process
from benchmarks.report import parse, print_header, print_table

TABLES = ("live", "update", "checkpoint", "build")
# (grow_window, grow_memory)
_UPDATES = ((1, None), (200, None), (200, 0.1), (200, 1.0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables that ``--tables`` names."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--rows", type=int, default=1_000_000, help="users + items of the trained models")
    parser.add_argument("--build_rows", type=int, default=20_000_000, help="of the model that is only built")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--embedding_size", type=int, default=64)
    options = parse(parser, arguments)
    settings = {
        "embedding_size": options.embedding_size,
        "train_batch_size": options.batch,
        "density": options.density,
        "update_interval": 1000,
    }
    what = f"BPR, D = {options.embedding_size}, density {options.density}"
    training = f"{what}, {options.rows:,} rows (users and items), batch {options.batch:,}, Adam"
    for table in options.tables:
        rows = options.build_rows if table == "build" else options.rows
        _PRINTERS[table](options, f"{what}, {rows:,} rows." if table == "build" else training, rows, settings)


def _print_live(options, what: str, rows: int, settings: dict[str, Any]) -> None:
    dense, masked, ours = (
        _probe(memory_probes.live_bytes, side, rows, settings) for side in ("stock", "masked_dense", "ours")
    )
    print_header(
        "Tensors that training keeps",
        options,
        f"{what}. The record says which weights were ever alive, one bit each. The masks of masked dense weights "
        "are indices here.",
    )
    print_table(
        ["MB", "RecBole", "masked dense weights", "ours", "ours / RecBole"],
        [[k, _mb(dense[k]), _mb(masked[k]), _mb(ours[k]), _share(ours[k], dense[k])] for k in ours],
    )


def _print_update(options, what: str, rows: int, settings: dict[str, Any]) -> None:
    dense = rows * options.embedding_size * 4
    found = {choice: _probe(memory_probes.update_peak, rows, *choice, settings) for choice in _UPDATES}
    print_header(
        "Peak memory of a topology update",
        options,
        f"{what}. Resident memory beyond what training holds between steps, from the first step that collects "
        f"gradients to the end of the update. The dense weights would take {_mb(dense)} MB. The first line "
        "has the defaults.",
    )
    print_table(
        [
            "grow_window, grow_memory",
            "a step, MB",
            "the update, MB",
            "/ dense weights",
            "growth buffer, MB",
            "/ dense",
        ],
        [
            [
                f"{window}, {memory}",
                *(_mb(sizes["step"]), _mb(sizes["update"]), _share(sizes["update"], dense)),
                *(_mb(sizes["buffer"]), _share(sizes["buffer"], dense)),
            ]
            for (window, memory), sizes in found.items()
        ],
    )


def _print_checkpoint(options, what: str, rows: int, settings: dict[str, Any]) -> None:
    dense, ours = (_probe(memory_probes.checkpoint_bytes, side, rows, settings) for side in ("stock", "ours"))
    print_header(
        "Checkpoint files",
        options,
        f"{what}. Without the optimizer means without the topology's record and the random states too.",
    )
    names = {"whole": "as the trainer saves it", "weights": "without the optimizer"}
    print_table(
        ["MB", "RecBole", "ours", "ours / RecBole"],
        [[name, _mb(dense[k]), _mb(ours[k]), _share(ours[k], dense[k])] for k, name in names.items()],
    )


def _print_build(options, what: str, rows: int, settings: dict[str, Any]) -> None:
    sizes = _probe(memory_probes.build_peak, rows, settings)
    print_header("Peak memory of building a sparse model", options, what)
    print_table(
        ["", "MB", "/ the sparse model"],
        [
            [name, _mb(sizes[kind]), _share(sizes[kind], sizes["model"])]
            for kind, name in (
                ("model", "the sparse model, values and indices"),
                ("peak", "peak while it is built"),
                ("dense", "the dense weights"),
            )
        ],
    )


_PRINTERS = {
    "live": _print_live,
    "update": _print_update,
    "checkpoint": _print_checkpoint,
    "build": _print_build,
}


def _probe(function, *arguments: Any) -> dict[str, int]:
    return in_fresh_process(_on_threads, torch.get_num_threads(), function, *arguments)


def _on_threads(threads: int, function, *arguments: Any) -> dict[str, int]:
    torch.set_num_threads(threads)
    return function(*arguments)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.3f}" if size < 1e6 else f"{size / 1e6:,.1f}"


def _share(size: int, whole: int) -> str:
    return f"{size / whole:.3f}" if whole else "-"


if __name__ == "__main__":
    main()
