"""Clicks on rows of many fields, small ones and long tails, as a RecBole dataset for context-aware models."""

import re
from pathlib import Path

import numpy as np

from benchmarks.power_law import popular_ranks
from recbole_dsl.files import whole_file

# tokens of each field: users and items are the first two
SIZES = (
    50_000,
    20_000,
    10_000,
    5_000,
    2_000,
    1_000,
    1_000,
    500,
    500,
    200,
    200,
    100,
    100,
    50,
    50,
    24,
    20,
    12,
    10,
    10,
)
# of the hidden vector of a token
_FACTORS = 8
# of the logits
_MEAN = -1.0
_CHUNK = 50_000
_NAME = re.compile(r"fields-(\d+)")


def is_fields(name: str) -> bool:
    """Whether ``name`` is ``fields-<rows>``."""
    return bool(_NAME.fullmatch(name))


def ensure_fields(path: Path, name: str) -> None:
    """Write ``<path>/<name>/<name>.inter`` unless it is there: rows with a token of each field, and a label.

    Popularity in each field is a power law. The logit is a sum of a number for each token and of products of
    hidden vectors of each two, and the label is drawn from it. A model that knew the hidden values would have an
    AUC of 0.80.

    Args:
        name: ``fields-<rows>``.
    """
    file = path / name / f"{name}.inter"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, int(_NAME.fullmatch(name)[1]))


def drawn(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (rows, fields), int64, and the probability of each row's label, float64."""
    random = np.random.default_rng(seed)
    firsts = [random.standard_normal(size) for size in SIZES]
    vectors = [random.standard_normal((size, _FACTORS)) for size in SIZES]
    # ids say nothing about popularity
    orders = [random.permutation(size) for size in SIZES]
    tokens = np.stack([order[popular_ranks(random, len(order), rows)] for order in orders], 1)
    n, pairs = len(SIZES), len(SIZES) * (len(SIZES) - 1) / 2
    logits = np.empty(rows)
    for start in range(0, rows, _CHUNK):
        some = tokens[start : start + _CHUNK].T
        first = sum(values[ids] for values, ids in zip(firsts, some))
        hidden = [values[ids] for values, ids in zip(vectors, some)]
        products = (sum(hidden) ** 2 - sum(one**2 for one in hidden)).sum(1) / 2
        logits[start : start + _CHUNK] = _MEAN + first / n**0.5 + products / (pairs * _FACTORS) ** 0.5
    return tokens, 1 / (1 + np.exp(-logits))


def _write(file: Path, rows: int) -> None:
    tokens, probabilities = drawn(rows)
    labels = np.random.default_rng(1).random(rows) < probabilities
    names = ["user_id", "item_id", *(f"field_{number}" for number in range(2, len(SIZES)))]
    lines = ("\t".join(map(str, [*row, int(label)])) for row, label in zip(tokens, labels))
    with whole_file(str(file)) as out:
        out.write("\t".join([*(f"{name}:token" for name in names), "label:float\n"]).encode())
        out.writelines(f"{line}\n".encode() for line in lines)
