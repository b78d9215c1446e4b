"""From a checkpoint to an artifact."""

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender

from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.data.interactions import has_users_and_items
from recbole_dsl.errors import DSLError, refusal
from recbole_dsl.export.network import network_parts
from recbole_dsl.export.product_form import ProductForm, before_propagation, product_form, scores_of
from recbole_dsl.files import output_file, require_writable
from recbole_dsl.serving.artifact import Artifact, is_artifact, write_artifact
from recbole_dsl.serving.csr import CSR, Ids, offsets_of
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.quantising import VALUES
from recbole_dsl.serving.scorer import load_scorer
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.top_k_numpy import top_of
from recbole_dsl.serving.user_histories import LEVELS, UserHistories
from recbole_dsl.sparse.modules import sparse_weights
from recbole_dsl.training.quick_start import load_data_and_model
from recbole_dsl.turns import turn

# users for whom recommendations are compared, and users that are scored at once
_COMPARED, _BATCH = 5000, 256
_K = 10

# the scorer's part of the header, and the arrays
Parts = tuple[dict[str, Any], dict[str, NDArray]]


@dataclass(frozen=True)
class Export:
    """What `export` wrote; as a text, in words for the user.

    Attributes:
        path: the artifact.
        kind: "product" or "network".
        n_users: how many users it knows.
        n_items: how many items.
        n_bytes: of the file.
        table_bytes: of the vectors and their index, or of the network's weights.
        dense_bytes: of the same in dense float32.
        token_bytes: of the tokens of users and items.
        history_bytes: of the user histories, or of the items' popularity.
        ndcg: NDCG@10 on the validation data of the checkpoint and of the artifact; None if not computed.
    """

    path: str
    kind: str
    n_users: int
    n_items: int
    n_bytes: int
    table_bytes: int
    dense_bytes: int
    token_bytes: int
    history_bytes: int
    ndcg: tuple[float, float] | None

    def __str__(self) -> str:
        share = self.table_bytes / self.dense_bytes if self.dense_bytes else 1
        parts = {
            f"weights ({share:.3f} of dense float32)": self.table_bytes,
            "tokens": self.token_bytes,
            "user histories": self.history_bytes,
        }
        parts["other"] = self.n_bytes - sum(parts.values())
        lines = [
            f"{self.path}: {self.n_users:,} users, {self.n_items:,} items, served as a {self.kind}",
            f"{self.n_bytes:,} bytes: {', '.join(f'{n_bytes:,} {name}' for name, n_bytes in parts.items())}",
        ]
        if self.ndcg is not None:
            before, after = self.ndcg
            lines.append(f"NDCG@10 on the validation data: {before:.4f} the checkpoint, {after:.4f} the artifact")
        return "\n".join(lines)


@turn()
def export(
    model_file: str,
    path: str,
    *,
    values: str = "fp32",
    seen: str = "all",
    density: float | None = None,
    propagate: bool = False,
    compare: bool = True,
    data_path: str | None = None,
    model_class: type | None = None,
) -> Export:
    """Write the artifact of a checkpoint, for `Recommender`; it appears at ``path`` when it is complete.

    A model whose score is a product of a user's and an item's vector becomes two tables, whatever its name; any
    other is kept as a network, and needs RecBole where it is served.

    Args:
        model_file: a checkpoint that a training of this project saved.
        values: "fp32", "fp16", "int8" or "int4".
        seen: which items of the user histories the artifact knows, to leave them out: "all" in the data, those
            "trained" on, or "none".
        density: the share of the vectors' entries to keep, the largest of each table; None for all. Graph models
            make dense vectors of sparse weights.
        propagate: for a graph model such as LightGCN, store its sparse weights, and propagate them along the user
            histories when the artifact is loaded; the vectors are then dense in memory.
        compare: compute the NDCG of the checkpoint and of the artifact on the validation data.
        data_path: where the folder of the dataset is, if it has moved since.
        model_class: the model's class, if it is not one of RecBole's.

    Raises:
        DSLError: if an argument is wrong, the file no checkpoint, its data missing, or nothing can be written.
    """
    for name, value, allowed in (("values", values, VALUES), ("seen", seen, LEVELS)):
        if value not in allowed:
            raise refusal(name, value, f"one of {', '.join(allowed)}")
    is_number = isinstance(density, (int, float)) and not isinstance(density, bool)
    if density is not None and not (is_number and 0 < density <= 1):
        raise refusal("density", density, "a number in (0, 1]")
    place = output_file(path, "artifact", "an artifact", is_artifact, [model_file])
    require_writable(os.path.dirname(place), "artifact")
    config, model, dataset, train, valid, test = load_data_and_model(model_file, data_path, model_class)
    if not has_users_and_items(dataset):
        raise DSLError(f"dataset={config['dataset']}: must have USER_ID_FIELD and ITEM_ID_FIELD to be exported")
    model.eval()
    n_users, n_items = dataset.user_num - 1, dataset.item_num - 1
    trained = _histories([train._dataset], n_users)
    everything = _histories([train._dataset, valid._dataset, test._dataset], n_users)
    tokens = {
        **Tokens.of(dataset.field2id_token[dataset.uid_field][1:], "users").arrays("users"),
        **Tokens.of(dataset.field2id_token[dataset.iid_field][1 : n_items + 1], "items").arrays("items"),
    }
    histories = UserHistories.of(trained, everything, n_items, seen).arrays()
    ndcg = None
    with ExitStack() as kept:
        for weight in sparse_weights(model).values():
            kept.enter_context(weight.dense_kept())
        form = product_form(model, n_users, n_items)
        if form is not None:
            weights = None
            if propagate:
                form, weights = _before_propagation(model, form, trained, seen)
            scorer, own_arrays = _product_parts(form, values, density, weights)
            dense_bytes = 4 * form.items.n_columns * (n_users + n_items)
        else:
            for name, given in (("density", density), ("propagate", propagate or None)):
                if given is not None:
                    raise DSLError(
                        f"{name}={given}: must be left out, as {config['model']} is served as a network"
                    )
            scorer, own_arrays = network_parts(
                config, dataset, train._dataset, read_checkpoint(model_file), values, seen
            )
            alive = sum(parameter.numel() for parameter in model.parameters())
            dead = sum(math.prod(weight.shape) - len(weight.values) for weight in sparse_weights(model).values())
            dense_bytes = 4 * (alive + dead)
        header = {
            "model": config["model"],
            "dataset": config["dataset"],
            "n_users": n_users,
            "n_items": n_items,
            "options": {"values": values, "seen": seen, "density": density, "propagate": bool(propagate)},
            "kind": "product" if form is not None else "network",
            "scorer": scorer,
        }
        arrays = {**tokens, **histories, **own_arrays}
        if compare and form is not None:
            wanted = _histories([valid._dataset], n_users)
            ndcg = _compare(Artifact(path, header, arrays), model, trained, wanted)
    n_bytes = write_artifact(place, header, arrays)
    # a network has data beside its weights
    prefixes = ("product.", "network.weights.")
    table_bytes = _bytes({name: array for name, array in own_arrays.items() if name.startswith(prefixes)})
    sizes = n_bytes, table_bytes, dense_bytes, _bytes(tokens), _bytes(histories)
    return Export(path, header["kind"], n_users, n_items, *sizes, ndcg)


def _bytes(arrays: dict[str, NDArray]) -> int:
    return sum(array.nbytes for array in arrays.values())


def ndcg_at_10(ids: Ids, wanted: CSR) -> float:
    """The mean over users of the normalised discounted cumulative gain of ten items, as RecBole defines it.

    Args:
        ids: (n, up to 10) the recommended items of each user, the best first; -1 for nothing.
        wanted: n lists of distinct relevant items, none empty.
    """
    discounts = 1 / np.log2(np.arange(2, _K + 2))
    most = int(np.max(ids)) + int(np.max(wanted.columns)) + 2
    pairs = wanted.row_of_entry() * most + wanted.columns
    hits = np.isin(np.arange(len(ids))[:, None] * most + ids, pairs) & (ids >= 0)
    best = np.cumsum(discounts)[wanted.lengths.clip(max=_K) - 1]
    return float(((hits * discounts[: ids.shape[1]]).sum(1) / best).mean())


def _product_parts(form: ProductForm, values: str, density: float | None, weights: list[float] | None) -> Parts:
    header: dict[str, Any] = {"transform": form.transform, "has_bias": form.has_bias, "propagation": weights}
    arrays: dict[str, NDArray] = {}
    for side, entries in (("users", form.users), ("items", form.items)):
        if density is not None:
            entries = _largest(entries, round(density * entries.n_rows * entries.n_columns))
        table = PackedTable.of(entries, values)
        header[side] = table.describe()
        arrays.update(table.arrays(f"product.{side}"))
    return header, arrays


def _largest(matrix: CSR, n: int) -> CSR:
    """The ``n`` entries of the largest magnitude, the first of equal ones."""
    kept = np.zeros(len(matrix.values), bool)
    kept[np.argsort(-np.abs(matrix.values), kind="stable")[:n]] = True
    counts = np.bincount(matrix.row_of_entry()[kept], minlength=matrix.n_rows)
    return replace(matrix, offsets=offsets_of(counts), columns=matrix.columns[kept], values=matrix.values[kept])


def _before_propagation(
    model: AbstractRecommender, form: ProductForm, trained: CSR, seen: str
) -> tuple[ProductForm, list[float]]:
    if seen == "none":
        raise DSLError("propagate=True: must be left out with seen=none, as vectors are made along the seen items")
    found = before_propagation(model, form, trained)
    if found is None:
        name = type(model).__name__
        raise DSLError(f"propagate=True: must be left out, as {name} makes its vectors of no sparse weights so")
    return found


def _histories(datasets: list[Dataset], n_users: int) -> CSR:
    """The items of each user, ids from 0, each list ascending and distinct."""
    users, items = [], []
    for dataset in datasets:
        feat = dataset.inter_feat
        users.append(feat[dataset.uid_field].numpy())
        items.append(feat[dataset.iid_field].numpy())
        earlier = f"{dataset.iid_field}{dataset.config['LIST_SUFFIX']}"
        if earlier in feat:
            # the first items of a sequence are no targets
            lists = feat[earlier].numpy()
            owners, places = lists.nonzero()
            users.append(users[-1][owners])
            items.append(lists[owners, places])
    n_items = datasets[0].item_num
    keys = np.unique((np.concatenate(users).astype(np.int64) - 1) * n_items + np.concatenate(items))
    return CSR(offsets_of(np.bincount(keys // n_items, minlength=n_users)), keys % n_items - 1)


def _compare(
    artifact: Artifact, model: AbstractRecommender, trained: CSR, wanted: CSR
) -> tuple[float, float] | None:
    """NDCG@10 of the model and of the artifact for users with ``wanted`` items; None if there are none."""
    users = np.flatnonzero(wanted.lengths)
    users = users[np.unique(np.linspace(0, len(users) - 1, min(len(users), _COMPARED)).astype(np.int64))]
    if not len(users):
        return None
    scorer, n_items = load_scorer(artifact), artifact.header["n_items"]
    scores, k = scores_of(model, n_items), min(_K, n_items)
    before, after = [], []
    for start in range(0, len(users), _BATCH):
        batch = users[start : start + _BATCH]
        exclude = trained.take(batch)
        before.append(top_of(scores(batch), k, exclude, None)[0])
        after.append(scorer.top(batch, k, exclude, None)[0])
    of_users = wanted.take(users)
    return ndcg_at_10(np.concatenate(before), of_users), ndcg_at_10(np.concatenate(after), of_users)
