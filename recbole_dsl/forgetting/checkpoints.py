"""A checkpoint without some of its users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from recbole_dsl.checkpoint.codec import decode, encode
from recbole_dsl.checkpoint.tokens import pack_tokens, unpack_tokens
from recbole_dsl.data.trained_on import hashes_of_users
from recbole_dsl.errors import DSLError, shown
from recbole_dsl.forgetting.axes import UserAxes, widths_in, without
from recbole_dsl.serving.csr import CSR
from recbole_dsl.sparse.compressed_rows import new_offsets, smallest_unsigned
from recbole_dsl.sparse.validity import PARTS, parts_in
from recbole_dsl.topology.explored import n_bytes, stride_of


def users_of(checkpoint: Mapping[str, Any], path: str) -> list[str]:
    """The tokens of the users of ``checkpoint``, read from ``path``, by id from 1 on.

    Raises:
        DSLError: if it does not say them.
    """
    rows = checkpoint["rows"]
    field = checkpoint["config"].get("USER_ID_FIELD")
    if not rows:
        raise DSLError(
            f"file={shown(path)}: does not say whose rows it holds, as no file of before version 4 does: must be "
            "a checkpoint of this version"
        )
    if field not in rows["fields"]:
        raise DSLError(f"file={shown(path)}: holds no users: has no column {shown(field)}")
    return unpack_tokens(rows["tokens"][rows["fields"][field]])


def may_hold_others(checkpoint: Mapping[str, Any]) -> bool:
    """Whether its sample of interactions may have some of users whose tokens ``checkpoint`` has no more."""
    return bool(checkpoint["nights"] and checkpoint["trained_on"])


def without_users(checkpoint: Mapping[str, Any], gone: Sequence[str], path: str) -> dict[str, Any]:
    """``checkpoint``, read from ``path``, without the rows, interactions and tokens of ``gone``.

    What cannot be divided by users begins anew: the optimizer's moments, and gradients that were being summed.

    Raises:
        DSLError: if it cannot be told which rows are of users.
    """
    return _Checkpoint(checkpoint, gone, path).without_users()


class _Checkpoint:
    def __init__(self, content: Mapping[str, Any], gone: Sequence[str], path: str):
        self.content, self.gone, self.path = content, gone, path
        rows, config = content["rows"], content["config"]
        self.fields = rows["fields"]
        self.users = config["USER_ID_FIELD"]
        self.place = self.fields[self.users]
        self.tokens = users_of(content, path)
        left = set(gone)
        keep = np.array([True, *(token not in left for token in self.tokens)])
        sizes = [_n_tokens(packed) + 1 for packed in rows["tokens"]]
        # fields that share their tokens share the rows, which the first of them has
        counts: dict[str, int] = {}
        for field in [*rows["order"], *self.fields]:
            if field in self.fields and self.fields[field] not in {self.fields[known] for known in counts}:
                counts[field] = sizes[self.fields[field]]
        users = next(field for field in counts if self.fields[field] == self.place)
        self.axes = UserAxes(keep, counts, users, frozenset(widths_in(config)), self._refuse)

    def _refuse(self, words: str) -> NoReturn:
        raise DSLError(f"file={shown(self.path)}: {words}")

    def without_users(self) -> dict[str, Any]:
        content = self.content
        weights = {name: self._weight(name) for name in self._sparse()}
        state, shapes = {}, {}
        for name, weight in weights.items():
            state |= {f"{name}.{part}": tensor for part, tensor in zip(PARTS, weight.parts)}
            shapes[name] = list(weight.shape)
        for name, tensor in content["state_dict"].items():
            if name not in state:
                state[name] = self.axes.kept(tensor, name)
        rows = content["rows"]
        tokens = list(rows["tokens"])
        tokens[self.place] = pack_tokens([t for t, stays in zip(self.tokens, self.axes.keep[1:]) if stays])
        return {
            **content,
            "state_dict": {name: state[name] for name in content["state_dict"]},
            "shapes": shapes,
            "rows": {**rows, "tokens": tokens},
            "trained_on": self._trained_on(),
            "optimizers": [{**one, "state": {}} for one in content["optimizers"]],
            "topology": self._topology(weights),
            "other_parameter": self._encoded(content["other_parameter"], "other_parameter"),
            "attributes": {
                owner: self._encoded(values, f"attributes of {owner}")
                for owner, values in content["attributes"].items()
            },
        }

    def _sparse(self) -> list[str]:
        names = self.content["state_dict"]
        wholes = [name.removesuffix(".row_offsets") for name in names if name.endswith(".row_offsets")]
        return [name for name in wholes if all(one is not None for one in parts_in(names, name))]

    def _weight(self, name: str) -> "_Weight":
        values, columns, offsets = parts_in(self.content["state_dict"], name)
        given = (self.content["shapes"] or {}).get(name)
        if given is None:
            self._refuse(f"does not say the shape of {name}, as no file of an earlier version does")
        shape = tuple(given)
        masks = self.axes.of_shape(shape, name)
        n_columns = prod(shape[1:])
        whole = CSR(
            offsets.cpu().numpy().astype(np.int64), columns.cpu().numpy(), values.detach().cpu().numpy(), n_columns
        )
        if not masks:
            return _Weight(shape, shape, (values, columns, offsets), whole, {})
        left = without(whole, shape, masks)
        now = tuple(int(masks[axis].sum()) if axis in masks else size for axis, size in enumerate(shape))
        parts = (
            torch.from_numpy(left.values),
            torch.from_numpy(left.columns).to(smallest_unsigned(left.n_columns)),
            torch.from_numpy(left.offsets).to(new_offsets(0, len(left.values)).dtype),
        )
        return _Weight(shape, now, parts, whole, masks)

    def _topology(self, weights: Mapping[str, "_Weight"]) -> dict[str, Any]:
        topology = dict(self.content["topology"])
        explored, counts = dict(topology.get("explored", {})), dict(topology.get("explored_count", {}))
        for name in explored:
            if name in weights and weights[name].masks:
                explored[name], counts[name] = weights[name].explored(explored[name], counts.get(name))
        return {**topology, "explored": explored, "explored_count": counts, "window": {}}

    def _trained_on(self) -> dict[str, Any]:
        """The sample without what is of those who go, and the digest that such a sample has."""
        trained_on = self.content["trained_on"]
        item = self.content["config"].get("ITEM_ID_FIELD")
        # of earlier nights there may be users and items whose tokens the file has no more
        if not trained_on or item not in self.fields or self.content["nights"]:
            return {}
        items = unpack_tokens(self.content["rows"]["tokens"][self.fields[item]])
        sample = trained_on["sample"].cpu().numpy()
        for hashes in hashes_of_users(self.gone, items):
            sample = sample[~np.isin(sample, hashes)]
        # that of the whole data would tell whether a guess at theirs is right
        digest = int(sample.astype(np.uint64).sum(dtype=np.uint64)) % 2**63
        return {"digest": digest, "sample": torch.from_numpy(sample)}

    def _encoded(self, values: Mapping[str, Any], what: str) -> dict[str, Any]:
        try:
            return {name: encode(self.axes.kept(decode(one), f"{what}, {name},")) for name, one in values.items()}
        except DSLError:
            raise
        except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise DSLError(f"file={shown(self.path)}: its {what} is damaged") from error


@dataclass(frozen=True)
class _Weight:
    """A sparse weight before and after.

    Attributes:
        before, shape: the shape of the dense weight then and now.
        parts: its tensors now.
        whole: its entries before.
        masks: axis -> which entries of it stay.
    """

    before: tuple[int, ...]
    shape: tuple[int, ...]
    parts: tuple[Tensor, ...]
    whole: CSR
    masks: Mapping[int, Any]

    def explored(self, bits: Tensor, count: int | None) -> tuple[Tensor, int]:
        """The record of what was ever alive, of the entries that stay; the count is estimated by their share."""
        numel, recorded = prod(self.before), bits.cpu().numpy()
        was = SimpleNamespace(numel=numel, n_columns=prod(self.before[1:]))
        stride = next(one for one in (1, stride_of(was)) if n_bytes(was, one) == len(recorded))
        ever = np.zeros(numel, bool)
        ever[::stride] = np.unpackbits(recorded, count=-(-numel // stride), bitorder="little")
        alive = self.whole.row_of_entry() * was.n_columns + self.whole.column_of_entry()
        ever[alive] = True
        ever = ever.reshape(self.before)
        for axis, keep in self.masks.items():
            ever = ever.compress(keep, axis)
        ever = ever.reshape(-1)
        now = SimpleNamespace(numel=len(ever), n_columns=prod(self.shape[1:]))
        share = round((numel if count is None else count) * len(ever) / numel)
        exact = int(ever.sum()) if stride == 1 else min(len(ever), max(len(self.parts[0]), share))
        sample = ever if stride == 1 else ever[:: stride_of(now)]
        return torch.from_numpy(np.packbits(sample, bitorder="little")), exact


def _n_tokens(packed: Mapping[str, Tensor]) -> int:
    return len(packed["numbers"] if "numbers" in packed else packed["lengths"])
