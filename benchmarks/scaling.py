"""What several processes are worth: steps per second with 1 and 2, the parts of a step, and the bytes it sends.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --rows 20000 --steps 10

Writes results/scaling.md, between its marks. The processes share the machine: with as many threads in all as it
has cores, two have nothing that one does not have, but for what Python does one thing after the other.
"""

import argparse
import socket
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from recbole.utils import init_seed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from benchmarks.machine import describe_machine
from benchmarks.power_law import ensure_power_law
from benchmarks.quality_tables import write_page
from benchmarks.report import markdown_table, parse
from recbole_dsl.data.loading import load_data
from recbole_dsl.distributed.launching import launch
from recbole_dsl.distributed.process_group import leave, told_to_others
from recbole_dsl.training.configs import run_config, trainer_of
from recbole_dsl.training.model_building import make_model

PAGE = Path(__file__).parent.parent / "results" / "scaling.md"
PARTS = ("loader", "RecBole's hooks", "forward", "backward and sending", "optimizer")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure BPR and LightGCN in 1 and in 2 processes, dense and sparse, and write the page."""
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="users + items of BPR")
    parser.add_argument("--graph_rows", type=int, default=20_000, help="users + items of LightGCN")
    parser.add_argument("--batch", type=int, default=2048, help="interactions in a step, of all processes")
    parser.add_argument("--steps", type=int, default=20)
    options = parse(parser, arguments)
    sizes = {"BPR": options.rows, "LightGCN": options.graph_rows}
    datasets = {m: ensure_power_law(options.data_path, n // 2, n // 2, n * 3 // 2) for m, n in sizes.items()}
    cases = [(model, dataset, density) for model, dataset in datasets.items() for density in (1.0, 0.1)]
    found = {nproc: dict(zip(cases, _measure(cases, nproc, options))) for nproc in (1, 2)}
    rows = []
    for model, dataset, density in cases:
        for nproc in (1, 2):
            one, alone = found[nproc][model, dataset, density], found[1][model, dataset, density]
            dense = found[2][model, dataset, 1.0]["bytes"]
            rows.append(_row(model, sizes[model], density, nproc, one, alone, dense))
    head = ["model", "rows", "density", "processes", "steps per second", "of 1 process"]
    head += [f"{part}, ms" for part in PARTS]
    head += ["bytes sent per step", "of dense"]
    text = (
        f"\n    {options.command}\n\n{describe_machine()}; the processes share them.\n\n"
        f"D = 64, {options.batch:,} interactions a step in all, Adam, medians of {options.steps} steps of the "
        "first process; no topology update falls within. Bytes are those of the gradients that are added up, as "
        "one process gives them. At density 1 the model is dense, with the same fused optimizer and the same "
        "graph. An update sends the sums of collected gradients too, at most what `grow_memory` allows, and "
        "nothing else is sent after the start but a few numbers for each evaluation and the best epoch.\n\n"
    )
    write_page(PAGE, text + markdown_table(head, rows) + "\n")


def _row(model: str, size: int, density: float, nproc: int, one: Mapping, alone: Mapping, dense: float) -> list:
    sent = [f"{one['bytes']:,.0f}", f"{one['bytes'] / dense:.3f}"] if nproc > 1 else ["-", "-"]
    speed = 1 / sum(one[part] for part in PARTS)
    return [
        model, f"{size:,}", f"{density:g}", str(nproc), f"{speed:.1f}",
        f"{speed * sum(alone[part] for part in PARTS):.2f}",
        *(f"{1000 * one[part]:.1f}" for part in PARTS), *sent,
    ]  # fmt: skip


def _measure(
    cases: list[tuple[str, str, float]], nproc: int, options: argparse.Namespace
) -> list[dict[str, float]]:
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    of_run = {
        "data_path": options.data_path, "train_batch_size": options.batch, "state": "ERROR", "use_gpu": False,
        "show_progress": False, "topology": "fixed", "sparse_init": "uniform", "embedding_size": 64,
        "nproc": nproc, "world_size": nproc, "offset": 0, "ip": "localhost", "port": port,
    }  # fmt: skip
    return launch(measure_all, (cases, options.steps), of_run, 600)


def measure_all(
    cases: list[tuple[str, str, float]], steps: int, options: Mapping[str, Any]
) -> list[dict[str, float]]:
    """`measure_steps` of each (model, dataset, density) of ``cases``, of one process of those in ``options``."""
    if options["nproc"] == 1:
        several = {"nproc", "world_size", "offset", "ip", "port", "local_rank"}
        options = {name: value for name, value in options.items() if name not in several}
    with told_to_others():
        found = [measure_steps(*case, steps, options) for case in cases]
        leave()
    return found


def measure_steps(
    model: str, dataset: str, density: float, steps: int, options: Mapping[str, Any]
) -> dict[str, float]:
    """Seconds of each of `PARTS` of a training step, and the bytes of gradients that it sends."""
    config, _ = run_config(model, dataset, None, {**options, "density": density})
    init_seed(config["seed"], config["reproducibility"])
    data = load_data(config)
    network = make_model(config, data.train._dataset)
    trainer_class = trainer_of(config)
    trainer_class.prepare(config, network)
    trainer = trainer_class(config, network)
    sent = (lambda: 0) if config["single_spec"] else count_bytes(trainer.distributed_model)
    times = [_step(trainer, batch) for batch in _batches(data.train, steps + 3)]
    found = {part: median(time[i] for time in times[3:]) for i, part in enumerate(PARTS)}
    return {**found, "bytes": sent() / len(times)}


def count_bytes(model: torch.nn.parallel.DistributedDataParallel) -> Callable[[], int]:
    """What tells how many bytes of gradients ``model`` has given to be added up so far."""
    total = 0

    def count(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        nonlocal total
        total += bucket.buffer().numel() * bucket.buffer().element_size()
        return allreduce_hook(group, bucket)

    model.register_comm_hook(None, count)
    return lambda: total


def _batches(loader: Any, n: int) -> Any:
    """``n`` batches, and how long each took to be made."""

    def endless():
        while True:
            yield from loader

    batches = endless()
    for _ in range(n):
        began = perf_counter()
        batch = next(islice(batches, 1))
        yield batch, perf_counter() - began


def _step(trainer: Any, made: tuple) -> list[float]:
    batch, loading = made
    marks = [perf_counter()]

    def mark() -> None:
        marks.append(perf_counter())

    trainer.model.train()
    trainer.optimizer.zero_grad()
    nothing = 0
    if not trainer.config["single_spec"]:
        trainer.set_reduce_hook()
        nothing = trainer.sync_grad_loss()
    mark()
    loss = trainer.model.calculate_loss(batch)
    mark()
    (loss + nothing).backward()
    mark()
    trainer.optimizer.step()
    mark()
    return [loading, *(after - before for before, after in pairwise(marks))]


if __name__ == "__main__":
    main()
