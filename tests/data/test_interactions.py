import numpy as np
import pytest

from recbole_dsl.data.interactions import interactions_of
from tests.data.stock import made, stock
from tests.data.test_sequences import ALL, CASES, COMMON

GENERAL = {"model": "BPR", "dataset": "tiny", "load_col": None}


@pytest.mark.parametrize(
    "options",
    [
        GENERAL,
        {**GENERAL, "eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}, "order": "TO", "group_by": "user"}},
        COMMON,
        {**COMMON, "load_col": ALL},
        {**COMMON, **CASES["one column dropped"]},
        {**COMMON, **CASES["divided by time"]},
        {**COMMON, "unused_col": {"inter": ["item_id_list"]}},
    ],
)
def test_the_pairs_are_those_of_recboles_matrix(options, data_path):
    options = {**options, "data_path": data_path}
    with stock():
        theirs = [loader._dataset.inter_matrix("csr") for loader in made(options)[1:]]
    for loader, wanted in zip(made(options)[1:], theirs):
        found = interactions_of(loader._dataset)
        assert found.shape == wanted.shape and found.has_canonical_format
        assert np.array_equal(found.toarray() != 0, wanted.toarray() != 0)


def test_a_matrix_of_the_users_own_is_taken(data_path):
    data = made({**GENERAL, "data_path": data_path})[1]._dataset
    wanted = data.inter_matrix("csr") * 3

    class Own(type(data)):
        def inter_matrix(self, form="coo", value_field=None):
            return wanted

    data.__class__ = Own
    assert interactions_of(data) is wanted
