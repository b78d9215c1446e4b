"""Rows of a table that start in the same columns."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.initialisation.shared_columns import share_columns
from recbole_dsl.sparse.modules import sparse_weights


@given(
    rows=st.integers(4, 40),
    columns=st.integers(4, 20),
    density=st.floats(0.1, 0.7),
    padding=st.sampled_from([None, 0]),
)
def test_all_rows_have_the_same_first_columns_and_no_value_is_lost(rows, columns, density, padding):
    model = torch.nn.Embedding(rows, columns, padding_idx=padding)
    sparsify(model, DSLConfig(density=density, sparse_init="uniform"))
    (weight,) = sparse_weights(model).values()
    before = weight.values.detach().clone()
    share_columns(weight, torch.Generator().manual_seed(0))
    alive = weight.dense().detach() != 0
    filled = alive if padding is None else alive[1:]
    n_shared = weight.nnz // len(filled)
    assert filled[:, :n_shared].all() and not filled[:, n_shared + 1 :].any()
    assert weight.nnz == len(before) == alive.sum()
    assert padding is None or not alive[0].any()
    assert torch.equal(weight.values.detach().sort().values, before.sort().values)


@given(
    counts=st.lists(st.integers(0, 500), min_size=4, max_size=40),
    columns=st.integers(4, 20),
    density=st.floats(0.1, 0.7),
)
def test_rows_share_the_weights_by_the_roots_of_their_counts(counts, columns, density):
    model = torch.nn.Embedding(len(counts), columns)
    sparsify(model, DSLConfig(density=density, sparse_init="uniform"))
    (weight,) = sparse_weights(model).values()
    before = weight.values.detach().clone()
    share_columns(weight, torch.Generator().manual_seed(0), torch.tensor(counts))
    alive = weight.dense().detach() != 0
    lengths = alive.sum(1)
    assert all(row[:length].all() for row, length in zip(alive, lengths))
    assert torch.equal(weight.values.detach().sort().values, before.sort().values)
    roots = torch.tensor(counts).sqrt()
    if lengths.sum() < columns * (roots > 0).sum():
        assert not lengths[roots == 0].any()
    # no weight would be better placed in another row
    for giver in range(len(counts)):
        for taker in range(len(counts)):
            if lengths[giver] and lengths[taker] < columns:
                assert roots[giver] / (lengths[giver] - 0.5) >= roots[taker] / (lengths[taker] + 0.5) * (1 - 1e-6)
