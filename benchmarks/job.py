"""The time of a whole job, from the start of its process to the test result, and to the dense model's quality.

    python -m benchmarks.job --threads 1 --dataset ml-1m
    python -m benchmarks.job --threads 1 --dataset ml-1m --epochs 300 --to_quality --rounds 1
    python -m benchmarks.job --threads 1 --power_law 100000 50000 2500000
    python -m benchmarks.job --threads 1 --power_law 1000000 1000000 15000000 --epochs 1 --sample_stock 100 200
    python -m benchmarks.job --threads 1 --power_law 500000 100000 10000000 --times --model SASRec --until_training

Each job is a process of its own, and the sides take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import time
from typing import Any

from benchmarks.power_law import ensure_power_law
from benchmarks.report import parse, print_header, print_table
from benchmarks.sides import SIDE_NAMES

PARTS = ("load", "split", "start", "train", "evaluate", "save")
_SIDES = ("stock", "stock_fused", "ours", "ours_again")
_NAMES = {**SIDE_NAMES, "ours_again": "ours, any later run"}
_DENSITY = 0.1
# of the dense model's best score on the validation data
_QUALITY = 0.99


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table of whole jobs and their parts and, if asked for, of the time to the dense model's quality."""
    parser = argparse.ArgumentParser(prog="benchmarks.job", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="BPR")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument(
        "--power_law", type=int, nargs=3, metavar=("USERS", "ITEMS", "INTERACTIONS"), help="generated data instead"
    )
    parser.add_argument(
        "--times", action="store_true", help="generated data has a timestamp, as sequential models need"
    )
    parser.add_argument("--sides", nargs="+", choices=_SIDES, default=_SIDES)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--options", type=json.loads, default={}, help="more of RecBole's options, as JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--to_quality", action="store_true", help="the time to the dense model's quality too")
    parser.add_argument(
        "--sample_stock",
        type=int,
        nargs=2,
        metavar=("STEPS", "USERS"),
        help="let RecBole take so many steps of each epoch and evaluate so many users, and compute its time",
    )
    parser.add_argument("--until_training", action="store_true", help="end each job when the training begins")
    parser.add_argument("--profile", action="store_true", help="one more job of ours, and where its time goes")
    options = parse(parser, arguments)
    if options.power_law:
        options.dataset = ensure_power_law(options.data_path, *options.power_law, times=options.times)
    jobs: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    with tempfile.TemporaryDirectory() as cache:
        if "ours_again" in jobs:
            # fills the cache
            _job(options, "ours_again", cache)
        for _ in range(options.rounds):
            for side, done in jobs.items():
                done.append(_job(options, side, cache))
    print_header(f"{options.model} on {options.dataset}: a whole job", options, _about(options))
    _print_jobs(jobs)
    if options.to_quality:
        _print_times_to_quality(jobs)
    if options.profile:
        with tempfile.TemporaryDirectory() as cache:
            _print_profile(_job(options, "ours", cache, profile=True))


def _about(options: argparse.Namespace) -> str:
    what = f"At most {options.epochs} epochs with RecBole's options, a validation after each, and the test"
    if options.until_training:
        what = "A job with RecBole's options until its training begins"
    about = (
        f"{what}; ours at density {_DENSITY}. The sides take turns; medians of {options.rounds} rounds, in "
        "seconds: the process, its imports and the parts of the job."
    )
    if options.sample_stock:
        steps, users = options.sample_stock
        about += (
            f" RecBole took {steps} steps and evaluated {users} users; what it takes for all of them is computed "
            "from that."
        )
    return about


def _job(options: argparse.Namespace, side: str, cache: str, profile: bool = False) -> dict[str, Any]:
    settings = {
        "side": side,
        "profile": profile,
        "until_training": options.until_training,
        "model": options.model,
        "dataset": options.dataset,
        "threads": options.threads,
        "options": {"epochs": options.epochs, "show_progress": False, "valid_metric": "NDCG@10", "use_gpu": False},
        "began": time(),
    }
    if options.dataset != "ml-100k":
        settings["options"]["data_path"] = os.path.abspath(options.data_path)
    settings["options"].update(options.options)
    if side.startswith("stock"):
        settings["sample"] = options.sample_stock
    else:
        settings["options"].update(density=_DENSITY, data_cache=cache if side == "ours_again" else False)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        # a run writes into the folder that it is started in
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.job_run", json.dumps(settings)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
        )
    if done.returncode:
        raise RuntimeError(done.stderr)
    line = json.loads(done.stdout.splitlines()[-1])
    return {**line, "process": time() - settings["began"] + line["not_run"]}


def _print_jobs(jobs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    def middle(side: str, name: str) -> float:
        return median(job[name] if name in job else job["parts"].get(name, 0.0) for job in jobs[side])

    rows = []
    for side, done in jobs.items():
        parts = [middle(side, part) for part in PARTS]
        rest = median(job["process"] - job["imports"] - sum(job["parts"].values()) for job in done)
        times = (middle(side, "process"), middle(side, "imports"), middle(side, "until_trained"), *parts, rest)
        peak = middle(side, "peak")
        shares = (
            [median(job[name] for job in jobs["stock"]) for name in ("process", "peak")] if "stock" in jobs else ()
        )
        compared = [f"{shares[0] / times[0]:.2f} x", f"{peak / shares[1]:.2f}"] if shares else ["-", "-"]
        ndcg = next((f"{value:.4f}" for name, value in done[0]["test"].items() if name.startswith("ndcg")), "-")
        if done[0]["not_run"]:
            ndcg = "-"
        rows.append([_NAMES[side], *(f"{t:.1f}" for t in times), f"{peak / 2**20:,.0f}", *compared, ndcg])
    head = [
        "side",
        "whole job s",
        "imports",
        "from there to training",
        *PARTS,
        "all else",
        "peak MB",
        "RecBole / this",
        "memory / RecBole's",
    ]
    print_table([*head, "test NDCG@10"], rows)


def _print_profile(job: Mapping[str, Any]) -> None:
    print("\nOne more job of ours, looked at every 5 ms after its imports: the functions that it was in most.\n")
    print_table(["function", "share"], [[f"`{name}`", f"{share:.1%}"] for name, share in job["functions"]])


def _print_times_to_quality(jobs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    dense = next(side for side in jobs if side.startswith("stock"))
    wanted = _QUALITY * max(score for job in jobs[dense] for _, score in job["scores"])
    print(
        f"\nSeconds from the start of the process to a validation with NDCG@10 of {wanted:.4f} or more, which is"
    )
    print(f"{_QUALITY:.0%} of the dense model's best.\n")
    rows, reached = [], {}
    for side, done in jobs.items():
        found = [next(((t, n + 1) for n, (t, s) in enumerate(j["scores"]) if s >= wanted), None) for j in done]
        if all(found):
            reached[side] = median(t for t, _ in found)
            cells = [f"{reached[side]:.1f}", str(round(median(n for _, n in found)))]
            cells.append(f"{reached[dense] / reached[side]:.1f} x")
        else:
            cells = ["not reached", "-", "-"]
        best = max(score for job in done for _, score in job["scores"])
        rows.append([_NAMES[side], *cells, f"{best:.4f}"])
    print_table(["side", "s", "epochs", "dense / this", "best validation NDCG@10"], rows)


if __name__ == "__main__":
    main()
