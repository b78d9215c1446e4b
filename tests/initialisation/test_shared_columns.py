"""Rows of a table that start in the same columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.initialisation.shared_columns import column_shares, cross_columns, share_columns
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


@given(rows=st.integers(4, 40), columns=st.integers(4, 20), nnz=st.integers(1, 1000), seed=st.integers(0, 5))
def test_a_table_of_another_budget_has_values_of_its_own(rows, columns, nnz, seed):
    model = torch.nn.Embedding(rows, columns)
    sparsify(model, DSLConfig(density=0.3, sparse_init="uniform"))
    (weight,) = sparse_weights(model).values()
    before = weight.values.detach().clone()
    nnz = min(nnz, weight.numel)
    share_columns(weight, torch.Generator().manual_seed(seed), nnz=nnz)
    assert weight.nnz == nnz
    values, times = weight.values.detach().unique(return_counts=True)
    assert torch.isin(values, before).all()
    assert len(values) == min(nnz, len(before)) and times.max() - times.min() <= 1
    # as many as before in each column, and the last one is not full
    assert ((weight.dense().detach() != 0).sum(0).diff() <= 0).all()


@given(filled=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=12), nnz=st.integers(1, 144))
def test_a_cross_layer_has_the_entries_that_are_filled_most_often(filled, nnz):
    size = len(filled)
    model = torch.nn.Linear(size, size, bias=False)
    sparsify(model, DSLConfig(density=0.5, sparse_init="uniform"))
    (weight,) = sparse_weights(model).values()
    nnz = min(nnz, weight.numel)
    cross_columns(weight, torch.tensor(filled), torch.Generator().manual_seed(0), nnz)
    alive = torch.zeros(weight.numel, dtype=torch.bool)
    alive[weight.positions()] = True
    both = torch.tensor([[one * other for other in filled] for one in filled]).view(-1)
    assert alive.sum() == nnz
    assert nnz == weight.numel or both[alive].min() >= both[~alive].max()


def test_the_share_of_rows_that_fill_a_column_counts_each_as_often_as_it_is_seen():
    models = torch.nn.ModuleList([torch.nn.Embedding(3, 4), torch.nn.Embedding(2, 4)])
    sparsify(models, DSLConfig(density=0.5, sparse_init="uniform"))
    one, other = sparse_weights(models).values()
    share_columns(one, torch.Generator().manual_seed(0))
    share_columns(other, torch.Generator().manual_seed(0), nnz=2)
    assert column_shares([one, other], {}).tolist() == pytest.approx([1, 0.6, 0, 0])
    seen = {one: torch.tensor([1, 2, 3]), other: torch.tensor([4, 10])}
    assert column_shares([one, other], seen).tolist() == pytest.approx([1, 0.3, 0, 0])
