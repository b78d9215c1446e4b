"""From a checkpoint to a network in an artifact: weights, options, and what the model reads of its data."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data.dataset import Dataset, SequentialDataset

from recbole_dsl.checkpoint.codec import array_of, as_bytes, to_json
from recbole_dsl.checkpoint.random_state import equal_states, random_state
from recbole_dsl.errors import DSLError
from recbole_dsl.export.tracing import traced_dataset, traced_table
from recbole_dsl.network_scoring.artifact import PREFIX, load, restored_model
from recbole_dsl.network_scoring.randomness import drawing_from
from recbole_dsl.network_scoring.scorer import NetworkScorer
from recbole_dsl.network_scoring.stored_dataset import store_dataset, store_sequences
from recbole_dsl.network_scoring.stored_weights import store_weights
from recbole_dsl.options.stored_options import options_without_places
from recbole_dsl.serving.artifact import TYPES, Artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.sparse.modules import sparse_shapes
from recbole_dsl.training.model_state import drop_caches

# users that are scored to see what a model reads
_TRIED = 8


def network_parts(
    config: Config,
    dataset: Dataset,
    train_dataset: Dataset,
    checkpoint: Mapping[str, Any],
    values: str = "fp32",
    seen: str = "all",
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The scorer's part of the header, and the arrays, that serve the model of ``checkpoint`` without its data.

    They hold what the model reads of its data when it is made and when it scores, found by doing both, and each
    user's latest items for a sequential model. The model that is restored from them must give the same scores.

    Args:
        dataset: all of the data.
        train_dataset: the part that the model was trained on.
        values: "fp32", "fp16", "int8" or "int4", as of `store_weights`.
        seen: "trained" for the sequences of the training data; anything else for those of all the data, validation
            and test items included.

    Raises:
        DSLError: if the model reads what cannot be exported, or what is not known when recommending.
    """
    sequences = None
    if isinstance(train_dataset, SequentialDataset):
        sequences = _last_sequences(train_dataset if seen == "trained" else dataset)
    traced, read = traced_dataset(train_dataset)
    model = restored_model(config, traced, checkpoint, f"the checkpoint of {config['model']}")
    columns: set[str] = set()
    scorer = NetworkScorer(model, config, traced, sequences, False, partial(traced_table, read=columns))
    expected, drew = _tried(scorer, 0)
    if drew and not _are_close(expected, _tried(scorer, 1)[0]):
        scorer.draws = True
        expected, _ = _tried(scorer, 0)
    for table in read.columns.values():
        table |= columns
    arrays: dict[str, np.ndarray] = {}
    header = {
        "options": to_json(options_without_places(checkpoint), arrays, "options"),
        "data": store_dataset(train_dataset, read, arrays),
        "other_parameter": to_json(checkpoint["other_parameter"], arrays, "other"),
        "draws": scorer.draws,
        "has_histories": sequences is not None,
    }
    if sequences is not None:
        store_sequences(sequences, arrays)
    arrays = {PREFIX + name: array for name, array in arrays.items()}

    learned = {name for name, one in model.named_parameters(remove_duplicate=False) if one.requires_grad}

    def with_weights(values: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        stored, forms = dict(arrays), {}
        shapes = sparse_shapes(model)
        state = checkpoint["state_dict"]
        weights = store_weights(state, shapes, learned, values, f"{PREFIX}weights.", stored)
        for name, array in stored.items():
            if array.dtype.str[1:] not in TYPES.values():
                stored[name], forms[name] = as_bytes(array)
        return {**header, "weights": weights, "as_bytes": forms}, stored

    _check_restored(scorer, expected, *with_weights("fp32"))
    return with_weights(values)


def _last_sequences(dataset: SequentialDataset) -> CSR:
    """The latest items of each user, the padding included, the last target too; RecBole's ids.

    There are at most ``MAX_ITEM_LIST_LENGTH``, and none for users with a single interaction, of which RecBole
    makes no sequence.
    """
    table, field = dataset.inter_feat, dataset.iid_field + dataset.config["LIST_SUFFIX"]
    users, targets = array_of(table[dataset.uid_field]), array_of(table[dataset.iid_field])
    lengths, sequences = array_of(table[dataset.item_list_length_field]), array_of(table[field])
    longest = dataset.config["MAX_ITEM_LIST_LENGTH"]
    rows = np.full(dataset.user_num, -1)
    # the last of a user's rows stays
    rows[users] = np.arange(len(users))
    nothing = np.zeros(0, np.int64)
    return CSR.of_lists(
        np.append(sequences[row, : lengths[row]], targets[row])[-longest:] if row >= 0 else nothing for row in rows
    )


def _check_restored(
    scorer: NetworkScorer, expected: list[np.ndarray], header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Raise a DSLError if the model reads more than was traced, or scores otherwise when it is restored."""
    name = scorer.config["model"]
    whole = {
        "model": name,
        "dataset": scorer.config["dataset"],
        "n_users": scorer.dataset.user_num - 1,
        "n_items": scorer.dataset.item_num - 1,
        "scorer": json.loads(json.dumps(header)),
    }
    again = load(Artifact(f"that of {name}", whole, arrays), scorer.config.model_class)
    if not _are_close(expected, _tried(again, 0)[0]):
        raise DSLError(f"model={name}: scores otherwise when it is made again, so it cannot be exported")


def _tried(scorer: NetworkScorer, seed: int) -> tuple[list[np.ndarray], bool]:
    """The scores of some users and, if the model takes them, histories; and whether it drew random numbers."""
    users = np.arange(min(_TRIED, scorer.dataset.user_num - 1))
    # KGIN draws for what it keeps between batches
    drop_caches(scorer.model)
    with drawing_from(seed):
        before = random_state(with_gpus=False)
        found = [scorer.scores(users)]
        if scorer.takes_histories:
            items = np.arange(min(3, scorer.dataset.item_num - 1))
            found.append(scorer.scores_for(CSR.of_lists([items, items[:1]])))
        return found, not equal_states(before, random_state(with_gpus=False))


def _are_close(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True) for a, b in zip(some, others))
