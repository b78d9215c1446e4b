"""A network in an artifact without some of its users: its weights, and what it reads of its data."""

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_dsl.checkpoint.codec import as_bytes, decode, encode, from_bytes, from_json, to_json
from recbole_dsl.forgetting.artifacts import rows_of
from recbole_dsl.forgetting.axes import UserAxes, widths_in, without
from recbole_dsl.network_scoring.artifact import PREFIX
from recbole_dsl.network_scoring.stored_dataset import read_sequences, store_sequences, token_counts
from recbole_dsl.network_scoring.stored_features import read_feature, store_feature
from recbole_dsl.options.checked_config import refused_in_one_line
from recbole_dsl.serving.artifact import TYPES, Artifact, refused
from recbole_dsl.serving.csr import CSR, Mask, offsets_of
from recbole_dsl.serving.packed_table import PackedTable

Parts = tuple[dict[str, Any], dict[str, NDArray]]


def without_users(
    artifact: Artifact, header: dict[str, Any], arrays: dict[str, NDArray], keep: Mask, gone: Collection[str]
) -> Parts:
    """The header and the arrays of ``artifact`` without users.

    Args:
        header, arrays: those of the artifact, from which tokens and user histories are gone already.
        keep: (users + 1,) who stays, the padding first.
        gone: the tokens of the others.

    Raises:
        DSLError: if it makes no sense, or it cannot be told what is of users.
    """
    # parts that are missing or wrong raise where they are used
    with refused_in_one_line(str(refused(artifact.path, "its network cannot be read")), is_of_a_file=True):
        return _Network(artifact, header, arrays, keep, gone).parts()


class _Network:
    def __init__(
        self,
        artifact: Artifact,
        header: dict[str, Any],
        arrays: dict[str, NDArray],
        keep: Mask,
        gone: Collection[str],
    ):
        self.artifact, self.header, self.keep, self.gone = artifact, header, keep, gone
        self.scorer = dict(header["scorer"])
        self.forms = self.scorer["as_bytes"]
        self.arrays = {
            name: from_bytes(one, self.forms[name]) if name in self.forms else one for name, one in arrays.items()
        }
        self.options = from_json(self.scorer["options"], self._named(""), "options")
        self.user = self.options.get("USER_ID_FIELD", "user_id")
        item = self.options.get("ITEM_ID_FIELD", "item_id")
        aliases = self.options.get("alias_of_user_id") or []
        self.ids = {self.user, *([aliases] if isinstance(aliases, str) else aliases)}
        data = self.scorer["data"]
        known = token_counts(data) | {self.user: len(keep), item: header["n_items"] + 1}
        columns = dict.fromkeys([*(field for field, _ in data["fields"]), self.user, item])
        counts = {
            field: known[field] for field in columns if field in known and field not in self.ids - {self.user}
        }
        numbers = frozenset(widths_in(self.options))
        self.axes = UserAxes(keep, counts, self.user, numbers, artifact.refuse)

    def parts(self) -> Parts:
        self.scorer["data"] = self._data()
        # encoded as in a checkpoint, and then as JSON
        self.scorer["other_parameter"] = self._json(
            self.scorer["other_parameter"],
            "other",
            lambda value: {
                name: encode(self.axes.kept(decode(one), f"other_parameter, {name},"))
                for name, one in value.items()
            },
        )
        if self.scorer["has_histories"]:
            n_items = self.header["n_items"] + 1
            left = read_sequences(self._named(""), len(self.keep), n_items).take(np.flatnonzero(self.keep))
            kept: dict[str, NDArray] = {}
            store_sequences(left, kept)
            self.arrays |= {PREFIX + name: array for name, array in kept.items()}
        self._weights()
        forms = {}
        for name, array in self.arrays.items():
            if array.dtype.str[1:] not in TYPES.values():
                self.arrays[name], forms[name] = as_bytes(array)
        self.scorer["as_bytes"] = forms
        return {**self.header, "scorer": self.scorer}, self.arrays

    def _named(self, begin: str) -> dict[str, NDArray]:
        """The arrays of the network whose names begin so, without its prefix."""
        found = {n.removeprefix(PREFIX): one for n, one in self.arrays.items() if n.startswith(PREFIX)}
        return {name: one for name, one in found.items() if name.startswith(begin)}

    def _json(self, form: Any, begin: str, change: Callable[[Any], Any]) -> Any:
        arrays = self._named(f"{begin}.")
        value = from_json(form, arrays, begin)
        for name in arrays:
            del self.arrays[PREFIX + name]
        kept: dict[str, NDArray] = {}
        form = to_json(change(value), kept, begin)
        self.arrays |= {PREFIX + name: array for name, array in kept.items()}
        return form

    def _data(self) -> dict[str, Any]:
        data = self.scorer["data"]
        for field in data["preloaded"]:
            name = f"{PREFIX}preloaded/{field}"
            self.arrays[name] = self.axes.kept(self.arrays[name], f"preloaded weights of {field}")
        return {
            **data,
            "fields": [[field, self._field(field, stored)] for field, stored in data["fields"]],
            "tables": {name: self._table(name, table) for name, table in data["tables"].items()},
            "attributes": {
                name: self._json(form, f"data/{name}", partial(self.axes.kept, name=name))
                for name, form in data["attributes"].items()
            },
        }

    def _field(self, field: str, stored: dict[str, Any]) -> dict[str, Any]:
        if field not in self.ids:
            return stored
        changed = dict(stored)
        if "n_tokens" in stored:
            changed["n_tokens"] = int(self.keep.sum())
        if "tokens" in stored:
            changed["tokens"] = [token for token in stored["tokens"] if token not in self.gone]
        return changed

    def _table(self, name: str, table: dict[str, Any]) -> dict[str, Any]:
        arrays, length = self._named(f"{name}/"), table["length"]
        columns = {
            column: read_feature(form, length, f"{name}/{column}", arrays) for column, form in table["columns"]
        }
        ids = self.ids & columns.keys()
        if name == "user_feat":
            rows = self.keep
        elif ids:
            rows = np.logical_and.reduce([self.keep[columns[column]] for column in ids])
        elif name == "inter_feat" and columns:
            self.artifact.refuse(
                f"has interactions without their {self.user}: must be exported again, from a checkpoint and data "
                "without them"
            )
        else:
            return table
        new = self.axes.new_ids()
        for part in arrays:
            del self.arrays[PREFIX + part]
        kept: dict[str, NDArray] = {}
        forms = []
        for column, values in columns.items():
            left = new[values[rows]].astype(values.dtype) if column in ids else values[rows]
            forms.append([column, store_feature(left, f"{name}/{column}", kept)])
        self.arrays |= {PREFIX + part: array for part, array in kept.items()}
        return {"length": int(rows.sum()), "columns": forms}

    def _weights(self) -> None:
        weights = self.scorer["weights"]
        # tied ones are stored once
        done: dict[str, Any] = {}
        tables = {kind: weights[kind] for kind in ("sparse", "packed") if kind in weights}
        for name, description in chain.from_iterable(of_kind.items() for of_kind in tables.values()):
            if description["of"] not in done:
                done[description["of"]] = self._sparse(name, description)
        dense: set[str] = set()
        for name, key in weights["dense"].items():
            if key not in dense:
                self.arrays[key] = self.axes.kept(self.arrays[key], name)
            dense.add(key)
        changed = {
            kind: {name: done[description["of"]] for name, description in of_kind.items()}
            for kind, of_kind in tables.items()
        }
        self.scorer["weights"] = {**weights, **changed}

    def _sparse(self, name: str, description: dict[str, Any]) -> dict[str, Any]:
        shape, prefix = tuple(description["shape"]), description["of"]
        masks = self.axes.of_shape(shape, name)
        if not masks:
            return description
        now = [int(masks[axis].sum()) if axis in masks else size for axis, size in enumerate(shape)]
        old = {n: self.arrays.pop(n) for n in list(self.arrays) if n.startswith(f"{prefix}.")}
        if "table" in description:
            table = rows_of(PackedTable.read(self.artifact, prefix, shape[0], description["table"]), shape, masks)
            self.arrays |= table.arrays(prefix)
            return {**description, "shape": now, "table": table.describe()}
        values, columns, counts = (old[f"{prefix}.{part}"] for part in ("values", "columns", "counts"))
        offsets = offsets_of(counts)
        left = without(CSR(offsets, columns, values, int(np.prod(shape[1:]))), shape, masks)
        self.arrays[f"{prefix}.values"] = left.values
        self.arrays[f"{prefix}.columns"] = left.columns.astype(columns.dtype)
        self.arrays[f"{prefix}.counts"] = left.lengths.astype(counts.dtype)
        return {**description, "shape": now}
