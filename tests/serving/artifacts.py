"""Artifacts of random tables, made without a model."""

from dataclasses import dataclass

import numpy as np

from recbole_dsl.serving.artifact import write_artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.user_histories import UserHistories


@dataclass(frozen=True)
class Made:
    """An artifact's header and arrays, and what went into it."""

    header: dict
    arrays: dict
    users: np.ndarray
    items: np.ndarray
    trained: list
    everything: list

    def write(self, path="model.rdsl"):
        write_artifact(path, self.header, self.arrays)
        return path


def random_table(random, n_rows, n_columns, density):
    """(n_rows, n_columns) float32 of few different values, so that scores tie."""
    values = random.integers(-3, 4, (n_rows, n_columns)).astype(np.float32)
    return values * (random.random((n_rows, n_columns)) < density)


def make(
    seed=0,
    n_users=12,
    n_items=20,
    n_columns=8,
    density=0.4,
    values="fp32",
    level="all",
    transform="none",
    users=None,
):
    """An artifact of users u0, u1, ... and items i0, i1, ...; each user has had some, the last one all items."""
    names = [f"u{user}" for user in range(n_users)] if users is None else users
    random = np.random.default_rng(seed)
    users, items = (random_table(random, n, n_columns, density) for n in (n_users, n_items))
    everything = [random.permutation(n_items)[: random.integers(1, n_items // 2)] for _ in range(n_users - 1)]
    everything.append(random.permutation(n_items))
    trained = [of_user[: random.integers(0, len(of_user) + 1)] for of_user in everything]
    tables = {"users": PackedTable.of(CSR.of_nonzero(users), values)}
    tables["items"] = PackedTable.of(CSR.of_nonzero(items), values)
    scorer = {side: table.describe() for side, table in tables.items()}
    header = {
        "kind": "product",
        "model": "BPR",
        "dataset": "tiny",
        "n_users": n_users,
        "n_items": n_items,
        "options": {},
        "scorer": {**scorer, "transform": transform, "has_bias": False},
    }
    arrays = {
        **Tokens.of(names, "users").arrays("users"),
        **Tokens.of([f"i{item}" for item in range(n_items)], "items").arrays("items"),
        **UserHistories.of(CSR.of_lists(trained), CSR.of_lists(everything), n_items, level).arrays(),
        **tables["users"].arrays("product.users"),
        **tables["items"].arrays("product.items"),
    }
    decoded = [table.rows(0, table.n_rows).dense() for table in tables.values()]
    return Made(header, arrays, *decoded, trained, everything)


def brute_force(scores, k, left_out=(), allowed=None):
    """Ids and scores of the best of ``scores`` (items,), ties by the smaller id."""
    there = [i for i in range(len(scores)) if i not in set(left_out) and (allowed is None or i in allowed)]
    best = sorted(there, key=lambda item: (-scores[item], item))[:k]
    return best, [scores[item] for item in best]
