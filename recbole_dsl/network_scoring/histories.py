"""What each user has done last, for models that score by it."""

from collections.abc import Mapping, MutableMapping

import numpy as np
from recbole.data.dataset import SequentialDataset

from recbole_dsl.checkpoint.codec import array_of, smallest
from recbole_dsl.serving.lists import Lists, offsets_of


def last_sequences(dataset: SequentialDataset) -> Lists:
    """The latest items of each user in ``dataset``, the last target too; ``MAX_ITEM_LIST_LENGTH`` at the most.

    RecBole makes no sequence of a user with a single interaction, who then has none here.

    Returns:
        a list for each user, the padding included; ids are RecBole's.
    """
    table, field = dataset.inter_feat, dataset.iid_field + dataset.config["LIST_SUFFIX"]
    users, targets = array_of(table[dataset.uid_field]), array_of(table[dataset.iid_field])
    lengths, sequences = array_of(table[dataset.item_list_length_field]), array_of(table[field])
    longest = dataset.config["MAX_ITEM_LIST_LENGTH"]
    rows = np.full(dataset.user_num, -1)
    # of several rows of a user the last one stays
    rows[users] = np.arange(len(users))
    nothing = np.zeros(0, np.int64)
    return Lists.of(
        np.append(sequences[row, : lengths[row]], targets[row])[-longest:] if row >= 0 else nothing for row in rows
    )


def store_histories(histories: Lists, arrays: MutableMapping[str, np.ndarray]) -> None:
    """Put ``histories`` into ``arrays``, in the smallest types."""
    arrays["histories/counts"] = smallest(np.diff(histories.offsets))
    arrays["histories/items"] = smallest(histories.ids)


def read_histories(arrays: Mapping[str, np.ndarray], n_users: int, n_items: int) -> Lists:
    """What `store_histories` put into ``arrays``, of so many users and items with the padding.

    Raises:
        KeyError, ValueError: if it is not there, or not of these.
    """
    counts, items = arrays["histories/counts"], arrays["histories/items"]
    for name, array in (("counts", counts), ("items", items)):
        if array.dtype.kind != "u" or array.ndim != 1:
            raise ValueError(f"histories/{name} must be a row of unsigned integers")
    offsets = offsets_of(counts.astype(np.int64))
    if len(counts) != n_users or (offsets < 0).any() or offsets[-1] != len(items):
        raise ValueError(f"histories must be of {n_users} users, and as long as they say")
    if items.size and not 0 < items.min() <= items.max() < n_items:
        raise ValueError(f"histories must be of items from 1 to {n_items - 1}")
    return Lists(offsets, items.astype(np.int64))
