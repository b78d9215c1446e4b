"""Which interactions a model was trained on, by token: a digest and a sample of fixed size."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from logging import getLogger
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from recbole.data.dataset import Dataset
from torch import Tensor

from recbole_dsl.checkpoint.run_state import SAMPLE
from recbole_dsl.data.lazy_columns import column_of
from recbole_dsl.data.rows import FileRows, rows_of

# interactions or tokens hashed at once: what they need stays in a processor's cache
_BLOCK = 2**16
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_known: "WeakKeyDictionary[Dataset, dict[str, Any]]" = WeakKeyDictionary()
# for each dataset, the digests of files that a warning has been logged for
_told: "WeakKeyDictionary[Dataset, set[int]]" = WeakKeyDictionary()


def trained_on(dataset: Dataset, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A digest and a sample of the interactions of ``dataset``, the training part; computed once.

    Args:
        earlier: the same for the file that the training continues from, which is added if its data was different.

    Returns:
        digest, an integer of 63 bits that does not depend on the order; sample, (n <= 1024,) int64, ascending.
    """
    if dataset not in _known:
        _known[dataset] = _digest_of(dataset)
    own = _known[dataset]
    if not earlier:
        return own
    both = torch.cat([own["sample"], earlier["sample"].cpu()]).unique()[:SAMPLE]
    is_same = earlier["digest"] == own["digest"]
    return {"digest": own["digest"] if is_same else (own["digest"] + earlier["digest"]) % 2**63, "sample": both}


def hashes_of_users(users: Sequence[str], items: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """For each of ``users``, the hashes in `trained_on` of interactions with ``items`` (n,); both are tokens."""
    of_users, of_items = (_hashes_of(tokens) for tokens in (users, items))
    for of_user in of_users:
        yield _mixed([of_user[None], of_items])


def mark_of(dataset: Dataset) -> str:
    """A hexadecimal digest of the ids and the interactions of ``dataset``, the training part."""
    rows = rows_of(dataset)
    digest = hashlib.sha256(repr((rows["order"], rows["fields"], trained_on(dataset)["digest"])).encode())
    for tokens in rows["tokens"]:
        for name, tensor in tokens.items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def warn_of_other_interactions(
    file: FileRows, train: Dataset | None, others: Mapping[str, Dataset | None]
) -> None:
    """Warn once if ``file`` was trained on other interactions than ``train``, with the share of ``others`` it saw.

    Args:
        others: a word for the data -> the validation or test data.
    """
    if not file.trained_on:
        return
    digest = file.trained_on["digest"]
    told = [_told.setdefault(dataset, set()) for dataset in (train, *others.values()) if dataset is not None]
    if all(digest in digests for digests in told):
        return
    for digests in told:
        digests.add(digest)
    if train is not None and trained_on(train)["digest"] == digest:
        return
    shares = {words: _share(one, file.trained_on["sample"]) for words, one in others.items() if one is not None}
    if train is None and not any(shares.values()):
        return
    what = "" if train is None else "was trained on other interactions than the training data of today, and "
    seen = " and ".join(f"{share:.0%} of the {words} data" for words, share in shares.items()) or "none held out"
    getLogger().warning(f"{file.named}: {what}has seen about {seen} in training")


def _digest_of(dataset: Dataset) -> dict[str, Any]:
    total, smallest = 0, np.zeros(0, np.int64)
    for hashes in _hashes(dataset):
        total += int(hashes.sum(dtype=np.uint64))
        if len(smallest) == SAMPLE:
            hashes = hashes[hashes < smallest[-1]]
        # many times as fast as NumPy's unique
        both = np.sort(np.concatenate([smallest, hashes]))
        smallest = both[np.append(True, both[1:] != both[:-1])[: len(both)]][:SAMPLE]
    return {"digest": total % 2**63, "sample": torch.from_numpy(smallest)}


def _share(dataset: Dataset, sample: Tensor) -> float:
    """An estimate of the share of ``dataset`` that is among the interactions of a ``sample``."""
    smallest = sample.numpy(force=True)
    last = smallest[-1] if len(smallest) == SAMPLE else np.iinfo(np.int64).max
    seen = compared = 0
    for hashes in _hashes(dataset):
        hashes = hashes[hashes <= last]
        seen += int(np.isin(hashes, smallest).sum())
        compared += len(hashes)
    return seen / compared if compared else 0.0


def _hashes(dataset: Dataset) -> Iterator[NDArray[np.int64]]:
    """A hash of 63 bits for each interaction: of its user and item, or of all its tokens if it has no such."""
    feat = dataset.inter_feat
    fields = [dataset.uid_field, dataset.iid_field]
    if None in fields:
        fields = [field for field in feat if field in dataset.field2id_token and feat[field].ndim == 1]
    tokens = {field: _hashes_of(dataset.field2id_token[field]) for field in fields}
    for start in range(0, len(feat) if fields else 0, _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield _mixed([of_token[np.asarray(column_of(feat, field, rows))] for field, of_token in tokens.items()])


def _hashes_of(tokens: Sequence[str] | NDArray) -> NDArray[np.uint64]:
    """(n,) a hash of each token."""
    found = np.empty(len(tokens), np.uint64)
    for start in range(0, len(tokens), _BLOCK):
        some = tokens[start : start + _BLOCK]
        texts = map(str, some.tolist() if isinstance(some, np.ndarray) else some)
        # pandas cannot hash lone surrogates
        plain = [t if t.isascii() else t.encode(errors="backslashreplace").decode() for t in texts]
        found[start : start + _BLOCK] = pd.util.hash_array(np.array(plain, object), categorize=False)
    return found


def _mixed(of_tokens: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """(n,) the combined hashes of several tokens, each (n,) or (1,)."""
    mixed: Any = np.uint64(0)
    for of_token in of_tokens:
        mixed = pd.util.hash_array(mixed * _FACTOR + of_token, categorize=False)
    return (mixed >> np.uint64(1)).astype(np.int64)
