"""Items that came after training: `Recommender.with_items` beside a model that was trained with them.

    python -m benchmarks.new_items --datasets ml-100k lastfm

A tenth of the items with enough interactions comes late: none of them is trained on. Half of them are given to
`with_items`, and to the training of the last side; the other half and a tenth of the rest are held out.
"""

import argparse
import csv
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from recbole.config import Config

from benchmarks.report import parse, print_header, print_table
from recbole_dsl import run_recbole_dsl
from recbole_dsl.serving import Recommender, export

_PROPERTIES = Path(__file__).parent.parent / "properties"
_K = 10
# RecBole's own parts: a twentieth for the choice of the epoch
_SPLIT = {"split": {"RS": [0.9, 0.05, 0.05]}, "order": "RO", "group_by": "user", "mode": "full"}

Pairs = list[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table with a row for each dataset and side."""
    parser = argparse.ArgumentParser(prog="benchmarks.new_items", description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["ml-100k", "lastfm"])
    parser.add_argument("--least", type=int, default=10, help="interactions of an item that may come late")
    parser.add_argument("--epochs", type=int, default=200, help="at most")
    options = parse(parser, arguments)
    rows = [row for dataset in options.datasets for row in _rows(options, dataset)]
    print_header(
        "Items that came after training",
        options,
        "BPR, density 0.1, the settings of properties/. A tenth of the items with at least "
        f"{options.least} interactions comes late; half of their interactions are given. NDCG@10 over the users "
        "with held-out interactions, all items ranked: of all of these, of those with new items, and of those "
        "with the others. RecBole holds out a tenth of what it trains on for itself.",
    )
    print_table(["dataset", "side", "all", "new items", "other items", "new items in the lists"], rows)


def _rows(options: argparse.Namespace, dataset: str) -> list[list[str]]:
    old, given, held_new, held_old = _parts(_interactions(options, dataset), options.least)
    with tempfile.TemporaryDirectory() as folder:
        before = _trained(options, folder, dataset, "before", old)
        users_of: dict[str, list[str]] = {}
        for user, item in given:
            users_of.setdefault(item, []).append(user)
        # the vectors as least squares leaves them
        alone = Recommender.load(before)
        alone.scorer._scale = np.eye(alone.scorer.items.n_columns)
        sides = {
            "without them": Recommender.load(before),
            "least squares alone": alone.with_items(users_of, errors="ignore"),
            "with_items": Recommender.load(before).with_items(users_of, errors="ignore"),
            "trained with them": Recommender.load(_trained(options, folder, dataset, "with", old + given)),
        }
        return [[dataset, side, *_quality(one, held_new, held_old, {*users_of})] for side, one in sides.items()]


def _interactions(options: argparse.Namespace, dataset: str) -> Pairs:
    config = Config("BPR", dataset, config_dict={"data_path": options.data_path, "state": "ERROR"})
    with open(Path(config["data_path"]) / f"{dataset}.inter", newline="", encoding="utf-8") as file:
        pairs = {(row["user_id:token"], row["item_id:token"]) for row in csv.DictReader(file, delimiter="\t")}
    return sorted(pairs)


def _parts(pairs: Pairs, least: int) -> tuple[Pairs, Pairs, Pairs, Pairs]:
    """What is trained on, what is given of the new items, and what is held out of these and of the others."""
    random = np.random.default_rng(0)
    _, of_pair, counts = np.unique([item for _, item in pairs], return_inverse=True, return_counts=True)
    frequent = np.flatnonzero(counts >= least)
    late = random.choice(frequent, max(1, len(frequent) // 10), replace=False)
    is_late, is_half, is_tenth = (
        np.isin(of_pair, late), random.random(len(pairs)) < 0.5, random.random(len(pairs)) < 0.1
    )  # fmt: skip
    wanted = (~is_late & ~is_tenth, is_late & is_half, is_late & ~is_half, ~is_late & is_tenth)
    old, given, held_new, held_old = ([pairs[place] for place in np.flatnonzero(mask)] for mask in wanted)
    return old, given, held_new, held_old


def _trained(options: argparse.Namespace, folder: str, dataset: str, name: str, pairs: Pairs) -> str:
    """The artifact of BPR trained on ``pairs``."""
    os.makedirs(f"{folder}/{name}")
    with open(f"{folder}/{name}/{name}.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\n")
        file.writelines(f"{user}\t{item}\n" for user, item in pairs)
    file = _PROPERTIES / f"BPR-{dataset}.yaml"
    run_recbole_dsl(
        model="BPR",
        dataset=name,
        config_file_list=[str(file)] if file.exists() else None,
        config_dict={
            "data_path": folder,
            "checkpoint_dir": f"{folder}/{name}-saved",
            "eval_args": _SPLIT,
            "epochs": options.epochs,
            "show_progress": False,
        },
    )
    (model_file,) = Path(f"{folder}/{name}-saved").glob("BPR-*.pth")
    return export(str(model_file), f"{folder}/{name}.rdsl", values="int8").path


def _quality(recommender: Recommender, held_new: Pairs, held_old: Pairs, new: set[str]) -> list[str]:
    users = sorted({user for user, _ in held_new + held_old})
    known = [user for user, place in zip(users, recommender.users.ids(users)) if place >= 0]
    found = dict(zip(known, recommender.recommend(known, _K)[0].tolist()))
    share = np.mean([item in new for items in found.values() for item in items])
    parts = [f"{_ndcg(found, held):.4f}" for held in (held_new + held_old, held_new, held_old)]
    return [*parts, f"{100 * share:.0f} %"]


def _ndcg(found: dict[str, list[str]], held: Pairs) -> float:
    wanted: dict[str, set[str]] = {}
    for user, item in held:
        if user in found:
            wanted.setdefault(user, set()).add(item)
    discounts = 1 / np.log2(np.arange(2, _K + 2))
    return float(
        np.mean([
            discounts[[item in items for item in found[user]]].sum() / discounts[: len(items)].sum()
            for user, items in wanted.items()
        ])
    )  # fmt: skip


if __name__ == "__main__":
    main()
