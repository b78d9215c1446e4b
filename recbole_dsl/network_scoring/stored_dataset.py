"""What a model reads of a RecBole dataset, as JSON and arrays, and the dataset that is rebuilt from them."""

from collections.abc import Mapping, MutableMapping
from logging import ERROR, getLogger
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_dsl.checkpoint.codec import array_of, from_json, to_json
from recbole_dsl.data.loading import dataset_class
from recbole_dsl.errors import DSLError
from recbole_dsl.network_scoring.stored_features import is_whole, read_feature, store_feature, unsigned
from recbole_dsl.serving.csr import CSR, offsets_of, smallest

# RecBole's remarks on data are for those who train on it
_QUIET = getLogger(f"{__name__}.quiet")
_QUIET.setLevel(ERROR)

# attributes that are made of the options, or of the parts below
_MADE = frozenset(
    "config logger dataset_name dataset_path field2type field2source field2seqlen field2bucketnum field2id_token "
    "field2token_id _preloaded_weight".split()
)
# rows that a table may claim to have if the file holds only runs of it
_MOST_CLAIMED = 2**19


class Read:
    """What a model has read of a dataset.

    Attributes:
        attributes: names of the dataset's attributes.
        columns: feature table ("inter_feat", "item_feat", ...) -> names of its columns.
        counted: fields whose tokens were counted.
        tokens: fields whose tokens were read.
        preloaded: fields whose preloaded weights were read.
    """

    def __init__(self) -> None:
        self.attributes: set[str] = set()
        self.columns: dict[str, set[str]] = {}
        self.counted: set[str] = set()
        self.tokens: set[str] = set()
        self.preloaded: set[str] = set()


def store_dataset(dataset: Dataset, read: Read, arrays: MutableMapping[str, np.ndarray]) -> dict[str, Any]:
    """The part of ``dataset`` that has been ``read``, as JSON; its columns go into ``arrays``.

    Raises:
        DSLError: naming an attribute that has been read but cannot be stored.
    """
    tables, attributes = {}, {}
    for name in sorted(read.attributes - _MADE):
        value = vars(dataset)[name]
        if isinstance(value, Interaction):
            tables[name] = _store_table(dataset, name, read.columns.get(name, set()), arrays)
            continue
        try:
            attributes[name] = to_json(value, arrays, f"data/{name}")
        except (TypeError, RecursionError) as error:
            raise DSLError(
                f"model={dataset.config['model']}: reads {name} of its dataset, which cannot be exported: {error}"
            ) from error
    return {
        "fields": [[field, _store_field(dataset, field, read)] for field in dataset.field2type],
        "tables": tables,
        "preloaded": sorted(_store_preloaded(dataset, read, arrays)),
        "attributes": attributes,
    }


def rebuild_dataset(config: Config, stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Dataset:
    """The part of a dataset that `store_dataset` stored, with ``config``; reads no file.

    Raises:
        AttributeError, KeyError, OverflowError, RecursionError, RuntimeError, TypeError, ValueError: if ``stored``
            is not of `store_dataset`.
    """
    kind = dataset_class(config)
    dataset = kind.__new__(kind)
    for name, value in stored["attributes"].items():
        if name in _MADE or hasattr(kind, name) or not name.isidentifier() or name.startswith("__"):
            raise ValueError(f"{name!r:.80} is no attribute of a dataset")
        setattr(dataset, name, from_json(value, arrays, f"data/{name}"))
    dataset.config, dataset.logger = config, _QUIET
    dataset.dataset_name, dataset.dataset_path = config["dataset"], config["data_path"]
    dataset.field2type, dataset.field2source, dataset.field2seqlen = {}, {}, {}
    dataset.field2bucketnum, dataset.field2id_token, dataset.field2token_id = {}, {}, {}
    for field, properties in stored["fields"]:
        _rebuild_field(dataset, field, properties)
    dataset._preloaded_weight = {field: np.array(arrays[f"preloaded/{field}"]) for field in stored["preloaded"]}
    for name, table in stored["tables"].items():
        if not name.endswith("_feat"):
            raise ValueError(f"{name!r:.80} is no table of features")
        setattr(dataset, name, _rebuild_table(dataset, name, table, arrays))
    return dataset


def token_counts(stored: Mapping[str, Any]) -> dict[str, int]:
    """Field -> how many tokens it has, for the fields of which ``stored``, of `store_dataset`, says it.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: if it is not of `store_dataset`.
    """
    counts = {}
    for field, properties in stored["fields"]:
        if "tokens" in properties:
            counts[field] = len(properties["tokens"])
        elif "n_tokens" in properties:
            counts[field] = int(properties["n_tokens"])
    return counts


def store_sequences(sequences: CSR, arrays: MutableMapping[str, np.ndarray]) -> None:
    """Put each user's ``sequences`` of items into ``arrays``, in the smallest types."""
    arrays["histories/counts"] = smallest(sequences.lengths)
    arrays["histories/items"] = smallest(sequences.columns)


def read_sequences(arrays: Mapping[str, np.ndarray], n_users: int, n_items: int) -> CSR:
    """The sequences that `store_sequences` put into ``arrays``, for so many users and items, the padding included.

    Raises:
        KeyError, ValueError: if they are missing, or of others.
    """
    counts, items = (unsigned(arrays[name], name) for name in ("histories/counts", "histories/items"))
    offsets = offsets_of(counts.astype(np.int64))
    if len(counts) != n_users or (offsets < 0).any() or offsets[-1] != len(items):
        raise ValueError(f"histories must be of {n_users} users, and as long as they say")
    if items.size and not 0 < items.min() <= items.max() < n_items:
        raise ValueError(f"histories must be of items from 1 to {n_items - 1}")
    return CSR(offsets, items.astype(np.int64))


def _store_table(
    dataset: Dataset, name: str, columns: set[str], arrays: MutableMapping[str, np.ndarray]
) -> dict[str, Any]:
    table, kept = vars(dataset)[name], []
    # row i of these tables has the id i
    columns = columns - {_id_column(dataset, name)}
    for column in sorted(columns & set(table.interaction), key=list(table.interaction).index):
        values = array_of(table.interaction[column])
        kept.append([column, store_feature(values, f"{name}/{column}", arrays)])
    return {"length": len(table), "columns": kept}


def _rebuild_table(
    dataset: Dataset, name: str, stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Interaction:
    length, columns, ids = stored["length"], {}, _id_column(dataset, name)
    if not isinstance(length, int) or not 0 <= length < 2**40:
        raise ValueError(f"{name} has {length!r:.40} rows")
    if ids is not None:
        if length != dataset.num(ids):
            raise ValueError(f"{name} has {length} rows, must have {dataset.num(ids)}")
        columns[ids] = torch.arange(length)
    forms = dict(stored["columns"])
    # columns that prove the table's length first
    for column in sorted(forms, key=lambda column: not is_whole(forms[column])):
        if not columns and not is_whole(forms[column]) and length > _MOST_CLAIMED:
            raise ValueError(f"{name} has {length} rows, of which the file has none")
        values = torch.from_numpy(read_feature(forms[column], length, f"{name}/{column}", arrays))
        columns[column] = _checked(dataset, name, column, values)
    table = Interaction({column: columns[column] for column in ([ids] if ids else []) + list(forms)})
    # models ask for the length of a table of which they read no column
    table.length = length
    return table


def _id_column(dataset: Dataset, table: str) -> str | None:
    """The column of a table of features that holds 0, 1, 2, ..."""
    return {"user_feat": dataset.uid_field, "item_feat": dataset.iid_field}.get(table)


def _checked(dataset: Dataset, name: str, column: str, values: torch.Tensor) -> torch.Tensor:
    if dataset.field2type.get(column) in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ) and values.numel():
        known = dataset.field2id_token.get(column)
        if values.min() < 0 or (known is not None and values.max() >= len(known)):
            raise ValueError(f"{column} of {name} has ids that it has no tokens for")
    return values


def _store_field(dataset: Dataset, field: str, read: Read) -> dict[str, Any]:
    source = dataset.field2source[field]
    stored = {
        "type": dataset.field2type[field].value,
        "source": source.value if isinstance(source, FeatureSource) else source,
        "length": dataset.field2seqlen.get(field),
        "buckets": dataset.field2bucketnum.get(field),
    }
    tokens = dataset.field2id_token.get(field)
    if tokens is not None and field in read.counted | read.tokens:
        stored["n_tokens"] = len(tokens)
        if field in read.tokens:
            stored["tokens"] = [str(token) for token in tokens]
    return stored


def _rebuild_field(dataset: Dataset, field: str, stored: Mapping[str, Any]) -> None:
    dataset.field2type[field] = FeatureType(stored["type"])
    sources = {source.value: source for source in FeatureSource}
    dataset.field2source[field] = sources.get(stored["source"], stored["source"])
    if stored["length"] is not None:
        length = stored["length"]
        dataset.field2seqlen[field] = tuple(length) if isinstance(length, list) else int(length)
    if stored["buckets"] is not None:
        dataset.field2bucketnum[field] = int(stored["buckets"])
    if "tokens" in stored:
        dataset.field2id_token[field] = np.array(stored["tokens"], dtype=str)
        dataset.field2token_id[field] = {token: place for place, token in enumerate(stored["tokens"])}
    elif "n_tokens" in stored:
        # models only count them
        dataset.field2id_token[field] = range(int(stored["n_tokens"]))


def _store_preloaded(dataset: Dataset, read: Read, arrays: MutableMapping[str, np.ndarray]) -> set[str]:
    for field in read.preloaded:
        values = dataset._preloaded_weight[field]
        single = values.astype(np.float32)
        arrays[f"preloaded/{field}"] = single if np.array_equal(single, values) else values
    return read.preloaded
