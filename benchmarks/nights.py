"""Train on night after night: each side is ranked on what its users do on the next one.

    python -m benchmarks.nights --data drifting ml-100k --sides scratch recoded --data_path FOLDER
    python -m benchmarks.nights --table

Time is cut into a first half and ten nights. A model is trained on the latest interactions, as many as the first
half has, and ranks all items for the users of the next night. What is of users or items that were not seen before
is counted, and not ranked. Each run adds a line to results/nights.jsonl, from which results/nights.md is written.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import recbole
import torch
from numpy.typing import NDArray

from benchmarks.drifting import drifting
from benchmarks.machine import describe_machine
from recbole_dsl import run_recbole_dsl, sparse_weights
from recbole_dsl.training.configs import build_config
from recbole_dsl.training.quick_start import prepare_trial

RESULTS = Path(__file__).parent.parent / "results"
NIGHTS = 10
COLUMNS = 64
# float32 columns of a dense table with the bytes of ours: 6.4 values, the column of each, an offset for each row
NARROW = 9


@dataclass(frozen=True)
class Side:
    """One way to have a model each night.

    Attributes:
        words: for the table.
        first: options of the first night; of all nights, where each begins anew.
        then: options of the other nights, which go on from the one before; None to begin anew.
        starts_dense: whether the dense tables of the first night get our start.
    """

    words: str
    first: dict[str, Any]
    then: dict[str, Any] | None = None
    starts_dense: bool = False


_OURS = {"density": 0.1, "embedding_size": COLUMNS, "epochs": 5}
# more epochs, or a larger rate, rank the first nights of ml-100k and the drifting data worse
_DENSE = {"density": 1.0, "embedding_size": COLUMNS, "epochs": 30, "learning_rate": 0.002}
_NARROW = {"density": 1.0, "embedding_size": NARROW, "epochs": 10}
SIDES = {
    "scratch": Side("ours, from scratch each night", _OURS),
    "dense": Side("dense, from scratch each night", _DENSE),
    "dense_random": Side(
        "dense, continued, new rows at random", _DENSE, {"warm_start_rows": "random", "epochs": 5}
    ),
    "dense_folded": Side(
        "dense, continued, new rows folded in", _DENSE, {"warm_start_rows": "fold_in", "epochs": 5}
    ),
    "narrow_folded": Side(
        "small dense with our start, continued, new rows folded in",
        _NARROW,
        {"warm_start_rows": "fold_in", "epochs": 2},
        True,
    ),
    "narrow_recoded": Side(
        "small dense with our start, continued, coded anew",
        _NARROW,
        {"warm_start_rows": "recode", "epochs": 2},
        True,
    ),
    "fixed": Side(
        "ours, continued, topology fixed, new rows folded in", _OURS, {"warm_start_rows": "fold_in", "epochs": 1}
    ),
    "by_gradient": Side(
        "ours, continued, folded in, exchange by gradient (a constant 3 %)",
        _OURS,
        {
            "warm_start_rows": "fold_in",
            "epochs": 1,
            "topology": "dynamic",
            "schedule": "constant",
            "update_ratio": 0.03,
            "stop_fraction": 1.0,
        },
    ),
    "recoded": Side("ours, continued, coded anew (the default)", _OURS, {"epochs": 1}),
    "recoded_dynamic": Side(
        "ours, continued, coded anew, and exchange by gradient", _OURS, {"epochs": 1, "topology": "dynamic"}
    ),
    "recoded_untrained": Side("ours, coded anew, not trained", _OURS, {"epochs": 1, "learning_rate": 0.0}),
}


@dataclass
class Night:
    """The interactions that a model is trained on, those it is ranked on, and how many are of the unknown."""

    train: NDArray
    test: NDArray
    unknown: dict[str, int] = field(default_factory=dict)


def nights_of(name: str, data_path: str) -> list[NDArray]:
    """The first half of the data ``name`` and each night: arrays (n, 2) of user and item."""
    if name == "drifting":
        return drifting()
    folder = Path(recbole.__file__).parent / "dataset_example" if name == "ml-100k" else Path(data_path)
    data = pd.read_csv(folder / name / f"{name}.inter", sep="\t")
    data.columns = [column.split(":")[0] for column in data.columns]
    if name == "ml-100k":
        time = data["timestamp"]
    else:
        # there is no time in them, but an order: all users begin with the first night and end with the last
        place = data.groupby("user_id").cumcount() if "timestamp" not in data else data["timestamp"]
        time = place / data.groupby("user_id")["item_id"].transform("size")
    data = data.iloc[np.argsort(time.to_numpy(), kind="stable")]
    half = len(data) // 2
    ends = half + np.round(np.arange(NIGHTS + 1) * (len(data) - half) / NIGHTS).astype(int)
    pairs = data[["user_id", "item_id"]].to_numpy()
    return [np.unique(pairs[a:b], axis=0) for a, b in zip([0, *ends], ends)]


def cut(parts: list[NDArray]) -> Iterator[Night]:
    """Each night's `Night`, the first one's of the first half."""
    everything, ends = np.concatenate(parts), np.cumsum([len(part) for part in parts])
    for night, end in enumerate(ends[:-1]):
        train = np.unique(everything[max(0, end - ends[0]) : end], axis=0)
        seen = {tuple(pair) for pair in train.tolist()}
        users, items = (set(train[:, side].tolist()) for side in (0, 1))
        following = [tuple(pair) for pair in parts[night + 1].tolist()]
        known = [(user, item) for user, item in following if user in users and item in items]
        unknown = {
            "users": sum(user not in users for user, _ in following),
            "items": sum(item not in items for _, item in following),
            "interactions": len(following),
        }
        yield Night(train, np.array([pair for pair in known if pair not in seen]), unknown)


def write_night(night: Night, folder: Path) -> str:
    """Write the parts of ``night`` for RecBole's benchmark_filename; returns the dataset's name."""
    name = "night"
    (folder / name).mkdir(parents=True, exist_ok=True)
    # RecBole wants a validation part, and nothing is chosen by it
    for part, pairs in {"train": night.train, "valid": night.train[:1], "test": night.test}.items():
        lines = "".join(f"{user}\t{item}\n" for user, item in pairs.tolist())
        (folder / name / f"{name}.{part}.inter").write_text(f"user_id:token\titem_id:token\n{lines}")
    return name


# of the first nights that several sides begin with: NDCG@10, seconds, and the file
_firsts: dict[str, tuple[float, float, bytes]] = {}


def run_side(name: str, side: Side, nights: list[Night], found: list[tuple[float, float]]) -> None:
    """Have a model of ``side`` each night; of each its NDCG@10 and its seconds are added to ``found``."""
    first = f"{name} {side.first} {side.starts_dense}"
    with tempfile.TemporaryDirectory() as place:
        before = None
        for number, night in enumerate(nights):
            if number == 0 and first in _firsts:
                value, seconds, content = _firsts[first]
                found.append((value, seconds))
                before = f"{place}/first.pth"
                Path(before).write_bytes(content)
                continue
            folder = Path(place) / str(number)
            options: dict[str, Any] = {
                "benchmark_filename": ["train", "valid", "test"],
                "load_col": {"inter": ["user_id", "item_id"]},
                "data_path": str(folder),
                "checkpoint_dir": str(folder / "saved"),
                "train_batch_size": 2048,
                "eval_step": 0,
                "metrics": ["NDCG"],
                "topk": [10],
                "valid_metric": "NDCG@10",
                "metric_decimal_place": 6,
                "save_last": False,
                # every night is new data
                "data_cache": False,
                "use_gpu": False,
                **side.first,
            }
            if before is not None and side.then is not None:
                options |= {"warm_start": before, **side.then}
            dataset = write_night(night, folder)
            began = perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if side.starts_dense and before is None:
                    result = _started_dense(dataset, options)
                else:
                    result = run_recbole_dsl("BPR", dataset, config_dict=options)["test_result"]
            seconds = perf_counter() - began
            found.append((result["ndcg@10"], seconds))
            before = str(next((folder / "saved").glob("*.pth")))
            if number == 0:
                _firsts[first] = result["ndcg@10"], seconds, Path(before).read_bytes()


def _started_dense(dataset: str, options: dict[str, Any]) -> dict[str, float]:
    """Dense tables that start from the factorisation, which at density 1 is RecBole's start otherwise."""
    with prepare_trial(build_config("BPR", dataset, None, options)) as (trainer, data):
        for weight in sparse_weights(trainer.model).values():
            weight.awaits_data = True
        trainer.fit(data.train, data.valid, verbose=False)
        return trainer.evaluate(data.test)


def _lines() -> list[dict[str, Any]]:
    file = RESULTS / "nights.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measure(name: str, sides: list[str], data_path: str) -> None:
    """Run ``sides`` on the data ``name``; their earlier lines are replaced."""
    nights = list(cut(nights_of(name, data_path)))
    for key in sides:
        found: list[tuple[float, float]] = []
        run_side(name, SIDES[key], nights, found)
        values, seconds = ([round(number, 5) for number in some] for some in zip(*found))
        line = {"data": name, "side": key, "ndcg@10": values, "seconds": seconds, "machine": describe_machine()}
        line["unknown"] = {what: sum(night.unknown[what] for night in nights) for what in nights[0].unknown}
        others = [one for one in _lines() if (one["data"], one["side"]) != (name, key)]
        (RESULTS / "nights.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*others, line]))
        print(f"{name} {key}: {np.mean(values[1:]):.4f}, {np.mean(seconds[1:]):.1f} s a night", flush=True)


def table() -> str:
    """All lines as tables, one for each data."""
    parts = []
    lines = _lines()
    for name in dict.fromkeys(line["data"] for line in lines):
        of_data = {line["side"]: line for line in lines if line["data"] == name}
        base = of_data.get("scratch")
        unknown = next(iter(of_data.values()))["unknown"]
        parts.append(
            f"### {name}\n\nOf {unknown['interactions']:,} interactions that were to come, {unknown['users']:,} "
            f"were of users and {unknown['items']:,} of items that had not been seen; they are not ranked.\n\n"
            "| side | NDCG@10 | of from scratch | last three nights | seconds a night | of from scratch |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: |"
        )
        for key in SIDES:
            if key not in of_data:
                continue
            value, last = np.mean(of_data[key]["ndcg@10"][1:]), np.mean(of_data[key]["ndcg@10"][-3:])
            seconds = np.mean(of_data[key]["seconds"][1:])
            shares = ["", ""]
            if base:
                shares = [f"{v / np.mean(base[k][1:]):.1%}" for v, k in ((value, "ndcg@10"), (seconds, "seconds"))]
            parts[-1] += (
                f"\n| {SIDES[key].words} | {value:.4f} | {shares[0]} | {last:.4f} | {seconds:.1f} | {shares[1]} |"
            )
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["drifting", "ml-100k", "lastfm", "beauty"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES))
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--table", action="store_true", help="only write the tables of what was measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        for name in options.data:
            measure(name, options.sides, options.data_path)
    file = RESULTS / "nights.md"
    begin, _, _ = file.read_text().partition("## Tables") if file.exists() else ("", "", "")
    file.write_text(f"{begin}## Tables\n\n{table()}\n")


if __name__ == "__main__":
    main()
