"""Whether tables of one column, as FM's first-order weights are, should be sparse: the AUC both ways.

python -m benchmarks.one_column --threads 1
"""

import argparse
import tempfile
from collections.abc import Sequence
from itertools import product
from typing import Any

from recbole.config import Config

from benchmarks.report import mean_of_seeds, parse, print_header, print_table
from benchmarks.sides import QUIET, build, load
from recbole_dsl import DSLTrainer

_COLUMN = "first_order_linear"
# with the same number of weights in all as a dense column has
_SIDES = "sparse column", "dense column", "sparse column, as many weights"
_OPTIONS: dict[str, Any] = {
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"], "user": "*", "item": "*"},
    "threshold": {"rating": 4},
    "normalize_all": True,
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": None, "mode": "labeled"},
    "metrics": ["AUC"],
    "valid_metric": "AUC",
    "train_batch_size": 2048,
    "eval_batch_size": 409_600,
    "stopping_step": 10,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.one_column", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["FM", "DeepFM"])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--embedding_sizes", nargs="+", type=int, default=[10, 64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2020, 2021, 2022])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=100)
    options = parse(parser, arguments)
    print_header(
        "Tables of one column",
        options,
        f"{options.dataset}, split 8:1:1 at random, a rating of 4 or more is liked, density {options.density}. A "
        f"training stops after 10 epochs without a better AUC on the validation data. {len(options.seeds)} seeds.",
    )
    rows = []
    for model, size in product(options.models, options.embedding_sizes):
        for side in _SIDES:
            runs = [_run(model, size, side, seed, options) for seed in options.seeds]
            tested = [auc for auc, _ in runs]
            rows.append([model, str(size), side, f"{runs[0][1]:,}", mean_of_seeds(tested)])
    print_table(["model", "columns", "the table of one column", "alive weights of the tables", "test AUC"], rows)


def _run(model: str, size: int, side: str, seed: int, options: argparse.Namespace) -> tuple[float, int]:
    """The AUC on the test data, and the weights of the tables."""
    # the share of the column's dense weights in all, beside the others' density
    density = (1 + options.density * size) / (1 + size) if side == _SIDES[2] else options.density
    with tempfile.TemporaryDirectory() as folder:
        own = {"embedding_size": size, "epochs": options.epochs, "seed": seed, "density": density}
        own |= {"checkpoint_dir": folder, "data_path": options.data_path, "targets": "*embedding_table*"}
        own |= {"exclude": _COLUMN} if side == _SIDES[1] else {}
        config = Config(model, options.dataset, None, {**QUIET, **_OPTIONS, **own})
        data = load(config)
        trainer = DSLTrainer(config, build(config, data[0]._dataset))
        trainer.fit(data[0], data[1], verbose=False, show_progress=False)
        dense = sum(count for name, (count, _) in trainer.sparsity.dense.items() if name.startswith(_COLUMN))
        return trainer.evaluate(data[2])["auc"], trainer.sparsity.nnz + dense


if __name__ == "__main__":
    main()
