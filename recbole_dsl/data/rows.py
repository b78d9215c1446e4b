"""Which token each row of a weight belongs to: the tokens of every field, by id."""

from collections.abc import Mapping, Sequence
from logging import getLogger
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from recbole.utils import FeatureType

from recbole_dsl.checkpoint.tokens import is_same_packed, pack_tokens, unpack_tokens
from recbole_dsl.errors import DSLError, shown

_known: "WeakKeyDictionary[Dataset, dict[str, Any]]" = WeakKeyDictionary()
# paths of files without tokens that a warning has been logged for
_told: set[str] = set()


def rows_of(dataset: Dataset) -> dict[str, Any]:
    """The fields of ``dataset`` and their tokens, for a checkpoint; packed once for a dataset and its parts.

    Returns:
        order: the names of all fields. tokens: a list of {"numbers": (n,) integers} or {"text": (bytes,) uint8,
        "lengths": (n,)} in UTF-8, by id from 1. fields: token field -> its index in that list, which fields with
        shared ids have in common.
    """
    for other, known in list(_known.items()):
        # the parts of a dataset share their tokens
        if other.field2id_token is dataset.field2id_token:
            return known
    _known[dataset] = found = _packed_rows(dataset)
    return found


class FileRows:
    """The tokens of the rows in a file, and what these were trained on.

    Args:
        checkpoint: its content.
        option, path: the option that names it, and its path.
    """

    def __init__(self, checkpoint: Mapping[str, Any], option: str, path: str):
        self.path, self.named = path, f"{option}={path}"
        self.rows = checkpoint.get("rows") or {}
        self.trained_on = checkpoint.get("trained_on") or {}
        self._unpacked: dict[int, list[str]] = {}

    def require(self, dataset: Dataset) -> None:
        """Refuse ``dataset`` if any of its ids has another token than that row of the file.

        A file without tokens is accepted with a warning.

        Raises:
            DSLError: naming the first token that differs.
        """
        if not self.rows:
            self._warn_of_no_tokens()
            return
        own = rows_of(dataset)
        for field, mine, theirs in self._differing(own, dataset):
            self._ids(field, mine, theirs, dataset)
            first = next(i for i in range(max(len(mine), len(theirs))) if mine[i : i + 1] != theirs[i : i + 1])
            there, here = (shown(repr(some[first])) if first < len(some) else "none" for some in (mine, theirs))
            raise DSLError(
                f"{self.named}: row {first + 1} of {field} is of {there}, and id {first + 1} of "
                f"dataset={dataset.dataset_name} is {here}: must be data with the ids of the file, which "
                "load_data_and_model and --resume give it"
            )
        before, now = _common_order(self.rows["order"], own["order"])
        if before != now:
            raise DSLError(
                f"{self.named}: was trained with the columns {shown(', '.join(before))}, and dataset="
                f"{dataset.dataset_name} has them in the order {shown(', '.join(now))}: must be the same order"
            )

    def give_ids(self, dataset: Dataset) -> None:
        """Replace the new ids of ``dataset`` by those of the file, so that its weights fit.

        Tokens of the file that are missing in the data keep their ids. Nothing is changed if that is impossible,
        or if the file has no tokens.

        Raises:
            DSLError: naming the first token that the file does not know.
        """
        if not self.rows:
            return
        own = _packed_rows(dataset)
        maps: dict[str, NDArray[np.int64]] = {}
        # fields with shared ids keep sharing them
        names: dict[tuple[int, int], tuple[NDArray[np.object_], dict[str, int]]] = {}
        for field, mine, theirs in self._differing(own, dataset):
            maps[field] = self._ids(field, mine, theirs, dataset)
            place = self.rows["fields"][field], own["fields"][field]
            if place not in names:
                tokens = np.array([dataset.field2id_token[field][0], *mine], object)
                names[place] = tokens, {token: number for number, token in enumerate(tokens.tolist())}
                self._say_what_is_gone(field, mine, theirs)
        tables = {
            field: names[self.rows["fields"][field], own["fields"][field]] if field in maps else None
            for field in own["fields"]
        }
        self._refuse_other_links(dataset, tables)
        for field, ids in maps.items():
            dataset.field2id_token[field], dataset.field2token_id[field] = tables[field]
            for feat in dataset.feat_name_list:
                _replace(getattr(dataset, feat), field, dataset.field2type[field], ids)
        # models concatenate the fields of one table in the order of the columns
        columns = [field for field in self.rows["order"] if field in dataset.field2type]
        columns += [field for field in dataset.field2type if field not in columns]
        dataset.field2type = {field: dataset.field2type[field] for field in columns}

    def _differing(self, own: Mapping[str, Any], dataset: Dataset) -> list[tuple[str, list[str], list[str]]]:
        """(field, tokens of the file, tokens of the data) for every field whose tokens differ, without padding."""
        fields = self.rows["fields"]
        new = [field for field in own["fields"] if field not in fields]
        gone = [field for field in fields if field not in own["fields"]]
        if new and gone:
            raise DSLError(
                f"{self.named}: knows no {new[0]}, which dataset={dataset.dataset_name} has in the place of "
                f"{shown(repr(gone[0]))}: must be data with the columns that it was trained with"
            )
        theirs_at: dict[tuple[int, int], list[str] | None] = {}
        found = []
        for field in [field for field in own["fields"] if field in fields]:
            place = fields[field], own["fields"][field]
            if place not in theirs_at:
                was, now = self.rows["tokens"][place[0]], own["tokens"][place[1]]
                theirs_at[place] = None if is_same_packed(was, now) else unpack_tokens(now)
            if theirs_at[place] is not None:
                found.append((field, self._tokens(place[0]), theirs_at[place]))
        return found

    def _ids(self, field: str, mine: list[str], theirs: list[str], dataset: Dataset) -> NDArray[np.int64]:
        """(len(theirs) + 1,): the id in the file for each id of the data."""
        ids = dict(zip(mine, range(1, len(mine) + 1)))
        if len(ids) < len(mine) or len(set(theirs)) < len(theirs):
            raise DSLError(
                f"{self.named}: a token of {field} stands for several rows: must be the data that it was trained "
                f"on, and dataset={dataset.dataset_name} is another"
            )
        for token in theirs:
            if token not in ids:
                raise DSLError(
                    f"{self.named}: knows no {field} {shown(repr(token))}, which dataset={dataset.dataset_name} "
                    "has: must be data with the tokens that it was trained on; train anew for others"
                )
        return np.array([0, *(ids[token] for token in theirs)], np.int64)

    def _refuse_other_links(self, dataset: Dataset, tables: Mapping[str, Any]) -> None:
        """Refuse links by which an item and its entity would get different ids."""
        links = getattr(dataset, "item2entity", None)
        if not links:
            return
        items, entities = (
            tables[field][1] if tables.get(field) else dataset.field2token_id[field]
            for field in (dataset.iid_field, dataset.entity_field)
        )
        for item, entity in links.items():
            if item in items and entity in entities and items[item] != entities[entity]:
                raise DSLError(
                    f"{self.named}: {dataset.iid_field} {shown(repr(str(item)))} is linked to "
                    f"{shown(repr(str(entity)))} in dataset={dataset.dataset_name}: must be linked as in training"
                )

    def _say_what_is_gone(self, field: str, mine: list[str], theirs: list[str]) -> None:
        left = set(theirs)
        gone = [token for token in mine if token not in left]
        if gone:
            getLogger().info(
                f"{self.named}: {len(gone)} of its {field} are missing in the data, first {shown(repr(gone[0]))}; "
                "they keep their rows"
            )

    def _warn_of_no_tokens(self) -> None:
        if self.path in _told:
            return
        _told.add(self.path)
        getLogger().warning(
            f"{self.named}: does not record which user or item each row belongs to, as files of earlier versions "
            "and of RecBole; the rows are right if the data has not changed"
        )

    def _tokens(self, place: int) -> list[str]:
        if place not in self._unpacked:
            self._unpacked[place] = unpack_tokens(self.rows["tokens"][place])
        return self._unpacked[place]


def _packed_rows(dataset: Dataset) -> dict[str, Any]:
    places: dict[int, int] = {}
    tokens, fields = [], {}
    for field, names in dataset.field2id_token.items():
        if id(names) not in places:
            places[id(names)] = len(tokens)
            tokens.append(pack_tokens(names[1:]))
        fields[str(field)] = places[id(names)]
    return {"order": [str(field) for field in dataset.field2type], "fields": fields, "tokens": tokens}


def _common_order(some: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    common = set(some) & set(others)
    return [one for one in some if one in common], [one for one in others if one in common]


def _replace(feat: Any, field: str, kind: FeatureType, ids: NDArray[np.int64]) -> None:
    """Map the ids in the column ``field`` of a pandas table by ``ids``, in place."""
    if feat is None or field not in feat:
        return
    if kind == FeatureType.TOKEN_SEQ:
        feat[field] = [ids[np.asarray(one, np.int64)] for one in feat[field]]
    else:
        feat[field] = ids[feat[field].to_numpy()]
