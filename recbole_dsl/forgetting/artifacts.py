"""An artifact without some of its users."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.forgetting.axes import without
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import Ids, Mask
from recbole_dsl.serving.packed_table import PackedTable
from recbole_dsl.serving.product import load
from recbole_dsl.serving.tokens import Tokens
from recbole_dsl.serving.user_histories import UserHistories

# needs RecBole
_NETWORKS = "recbole_dsl.forgetting.networks"


def users_of(artifact: Artifact) -> list[str]:
    """The tokens of the users of ``artifact``."""
    return Tokens.read(artifact, "users", artifact.header["n_users"]).all.tolist()


def without_users(artifact: Artifact, gone: Sequence[str]) -> Artifact:
    """``artifact`` without the rows, histories and tokens of ``gone``. What it says of others stays, to the bit.

    Vectors of a graph model that are propagated when the file is loaded are stored as they are then, as those of
    others follow from the histories of all.

    Raises:
        DSLError: if it makes no sense, or it cannot be told which rows are of users.
    """
    header = artifact.header
    left = set(gone)
    tokens = users_of(artifact)
    keep = np.array([token not in left for token in tokens])
    stay = np.flatnonzero(keep)
    arrays = {n: one for n, one in artifact.arrays.items() if not n.startswith(("users.", "seen.", "popularity"))}
    arrays |= Tokens.of([token for token in tokens if token not in left], "users").arrays("users")
    arrays |= _histories(UserHistories.read(artifact), stay).arrays()
    header = {**header, "n_users": len(stay)}
    if header["kind"] == "product":
        return Artifact(artifact.path, *_product(artifact, header, arrays, keep))
    networks = importlib.import_module(_NETWORKS)
    return Artifact(artifact.path, *networks.without_users(artifact, header, arrays, np.append(True, keep), left))


def _histories(histories: UserHistories, users: Ids) -> UserHistories:
    level = histories.level
    if level == "none":
        # how many users have each item; whose these are it does not say
        return histories
    of_level = [histories.lists(users, one) for one in ("trained", level)]
    return UserHistories.of(*of_level, histories.n_items, level)


def _product(
    artifact: Artifact, header: dict[str, Any], arrays: dict[str, NDArray], keep: Mask
) -> tuple[dict[str, Any], dict[str, NDArray]]:
    # propagated, if the file asks for that
    scorer = load(artifact)
    users = rows_of(scorer.users, (scorer.users.n_rows, scorer.users.n_columns), {0: keep})
    arrays = {name: array for name, array in arrays.items() if not name.startswith("product.")}
    described = {**header["scorer"], "propagation": None}
    for side, table in (("users", users), ("items", scorer.items)):
        arrays |= table.arrays(f"product.{side}")
        described[side] = table.describe()
    return {**header, "scorer": described}, arrays


def rows_of(table: PackedTable, shape: tuple[int, ...], masks: Mapping[int, Mask]) -> PackedTable:
    """``table``, of a weight of ``shape``, with only some entries of some axes, which keep their bits.

    Args:
        masks: axis -> (size,) which entries stay.
    """
    columns = np.ones(shape[1:], bool)
    for axis, keep in masks.items():
        if axis:
            columns &= keep.reshape([-1 if one == axis else 1 for one in range(1, len(shape))])
    rows = masks.get(0, np.ones(shape[0], bool))
    return table.only(without(table.places(), shape, masks), rows, columns.reshape(-1))
