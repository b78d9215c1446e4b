"""Train every RecBole model for one epoch on ml-100k, dense and sparse: results/models.md.

    python -m benchmarks.models

Runs what is not yet in results/models.jsonl, a line each, and writes the page anew.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

from benchmarks.machine import describe_machine
from benchmarks.model_cases import BROKEN, CASES, model_of
from recbole_dsl import dsl_trainer

RESULTS = Path(__file__).parent.parent / "results"
DENSITY, UPDATE_INTERVAL = 0.1, 10
NOT_HERE = {
    "GRU4RecKG": "needs embedded entities (.ent), which ml-100k has not; the tests train it on generated data",
    "RippleNet": "left out for its time (6.4 s a step dense, 6.8 s sparse); the tests train it on generated data",
    "MCCLK": "left out for its time (8 s a step dense); the tests train it on generated data",
}
# RecBole's default is 50; shorter sequences train the same tensors in a fifth of the time
FAMILY_OPTIONS = {"sequential": {"MAX_ITEM_LIST_LENGTH": 10}}


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", help="only these, separated by commas")
    chosen = parser.parse_args().models
    sys.argv = sys.argv[:1]
    lines = RESULTS / "models.jsonl"
    RESULTS.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    for family, cases in CASES.items():
        for case, options in _first_of_each_model(cases).items():
            model = model_of(case)
            done = any(row["model"] == model for row in rows)
            left_out = model in {**BROKEN, **NOT_HERE} if chosen is None else model not in chosen.split(",")
            if done or left_out:
                continue
            rows.append(
                {
                    "family": family,
                    "model": model,
                    **_compare(model, {**FAMILY_OPTIONS.get(family, {}), **options}),
                }
            )
            with lines.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    (RESULTS / "models.md").write_text(_page(rows))


def _first_of_each_model(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    first = {}
    for case in cases:
        first.setdefault(model_of(case), case)
    return {case: cases[case] for case in first.values()}


def _compare(model: str, options: dict[str, Any]) -> dict[str, Any]:
    try:
        dense, _ = _train(model, options, sparse=False)
        loss, trainer = _train(model, options, sparse=True)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    cost, report = trainer.cost, trainer.sparsity
    reasons = sorted({reason.partition(":")[0] for _, reason in report.dense.values()})
    return {
        "trainer": type(trainer).__name__,
        "sparse": len(report.weights) + len(report.frozen),
        "dense": len(report.dense),
        "reasons": reasons,
        "density": report.density,
        "dense_bytes": cost.bytes.dense,
        "sparse_bytes": cost.bytes.sparse,
        "updates": len(trainer.topology_updates),
        "dense_loss": dense,
        "sparse_loss": loss,
    }


def _train(model: str, options: dict[str, Any], sparse: bool) -> tuple[float, Any]:
    settings = {"epochs": 1, "pretrain_epochs": 1, "save_step": 2, "state": "ERROR", **options}
    config = Config(model, "ml-100k", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    network = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    trainer_class = get_trainer(config["MODEL_TYPE"], config["model"])
    if sparse:
        config["density"], config["update_interval"] = DENSITY, UPDATE_INTERVAL
        trainer_class = dsl_trainer(trainer_class)
    trainer = trainer_class(config, network)
    trainer.fit(train_data, None, verbose=False, saved=False, show_progress=False)
    return trainer.train_loss_dict[0], trainer


_INTRODUCTION = f"""# Every RecBole model, sparse

One epoch on ml-100k (with its .user, .item, .kg and .link files where RecBole's settings for the family load
them), RecBole's default options (but for sequences of 10 at the most), seed 2020, density {DENSITY}, a topology
update every {UPDATE_INTERVAL} steps. The loss is what RecBole logs, summed over its parts and the epoch's batches.
Bytes are those of weights and indices, measured. Tensors stay dense because they are one-dimensional, unless
another reason is given.

    python -m benchmarks.models

{{machine}}.

| family | model | trainer | tensors sparse / dense | density | MB dense → sparse | loss dense | loss sparse |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

_REST = """
Not in the table:

{others}

Not trained by gradients, and refused: Pop, Random, ItemKNN, AsymKNN, EASE, SLIMElastic, NCEPLRec, ADMMSLIM,
XGBoost, LightGBM.
"""


def _page(rows: list[dict[str, Any]]) -> str:
    others = [f"- {model}: RecBole itself {reason}." for model, reason in BROKEN.items()]
    others += [f"- {model}: {reason}." for model, reason in NOT_HERE.items()]
    order = [model_of(case) for cases in CASES.values() for case in cases]
    table = "".join(f"{_line(row)}\n" for row in sorted(rows, key=lambda row: order.index(row["model"])))
    return _INTRODUCTION.format(machine=describe_machine()) + table + _REST.format(others="\n".join(others))


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['family']} | {row['model']} | {row['error']} | | | | | |"
    others = [reason for reason in row["reasons"] if reason != "one-dimensional"]
    tensors = f"{row['sparse']} / {row['dense']}" + (f" ({', '.join(others)})" if others else "")
    megabytes = f"{row['dense_bytes'] / 1e6:.2f} → {row['sparse_bytes'] / 1e6:.2f}"
    cells = [
        *(row["family"], row["model"], row["trainer"], tensors, f"{row['density']:.4f}", megabytes),
        *(f"{row['dense_loss']:.4f}", f"{row['sparse_loss']:.4f}"),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
