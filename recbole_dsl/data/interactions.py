"""The interactions of a data set as a matrix."""

from recbole.data.dataset import Dataset, SequentialDataset
from scipy.sparse import csr_matrix

import recbole_dsl.data.sequences  # noqa: F401
from recbole_dsl.data.lazy_columns import column_of
from recbole_dsl.data.sampling import Pairs

_OF_RECBOLE = Dataset.inter_matrix, SequentialDataset.inter_matrix


def interactions_of(dataset: Dataset) -> csr_matrix:
    """The pairs of a user and an item in ``dataset``: CSR, (users, items), not zero, columns ascending.

    They are those of RecBole's ``inter_matrix``, which takes several times the memory.
    """
    n_users, n_items = dataset.user_num, dataset.item_num
    if type(dataset).inter_matrix not in _OF_RECBOLE or not Pairs.fit(n_users, n_items):
        return dataset.inter_matrix("csr")
    users, items = dataset.uid_field, dataset.iid_field
    feat = dataset.inter_feat
    parts = [(column_of(feat, users).numpy(), column_of(feat, items).numpy())]
    history = f"{items}{dataset.config['LIST_SUFFIX']}"
    if isinstance(dataset, SequentialDataset) and history in feat:
        # the first item of a user is no target
        begins = feat[column_of(feat, dataset.item_list_length_field) == 1]
        if hasattr(begins, "first_entries"):
            begins = begins.first_entries({users, history})
        parts.append((begins[users].numpy(), begins[history][:, 0].numpy()))
    return Pairs(parts, n_users, n_items).matrix()


def has_users_and_items(dataset: Dataset) -> bool:
    """Whether interactions are of users with items; those of clicks may name neither (``USER_ID_FIELD: null``)."""
    return bool(dataset.uid_field and dataset.iid_field)
