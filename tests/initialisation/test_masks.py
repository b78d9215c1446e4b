"""First topologies at random and by magnitude."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.initialisation.masks import INITIALISERS, MaskSpec
from tests.toy import blocks_of


def start(dense, nnz, padding=None, keep_rows=False):
    return MaskSpec(*dense.shape, nnz, padding, keep_rows, lambda: dense)


def initial_mask(name, start, seed=0):
    return torch.cat(list(INITIALISERS[name](start, torch.Generator().manual_seed(seed))))


@given(st.sampled_from(list(INITIALISERS)), st.integers(2, 90), st.integers(1, 9), st.booleans(), st.data())
def test_initialisers_avoid_the_padding_row_and_are_exact(name, rows, columns, keep_rows, data):
    padding = data.draw(st.one_of(st.none(), st.integers(0, rows - 1)))
    capacity = rows * columns - (0 if padding is None else columns)
    nnz = data.draw(st.integers(1, capacity))
    with blocks_of(16):
        mask = initial_mask(name, start(torch.randn(rows, columns), nnz, padding, keep_rows))
    assert mask.shape == (rows, columns) and mask.sum() == nnz
    assert padding is None or not mask[padding].any()
    kept = rows - (padding is not None)
    if keep_rows and nnz >= kept:
        assert mask.any(1).sum() == kept


@pytest.mark.parametrize("keep_rows", [False, True])
def test_the_initial_weights_are_uniform(keep_rows):
    counts, generator = torch.zeros(24, 2), torch.Generator().manual_seed(0)
    with blocks_of(16):
        for _ in range(4000):
            blocks = INITIALISERS["uniform"](start(torch.zeros(24, 2), 30, None, keep_rows), generator)
            counts += torch.cat(list(blocks))
    assert (counts / 4000 - 30 / 48).abs().max() < 0.04


def test_magnitude_keeps_the_largest():
    dense = torch.tensor([[9.0, -9.0], [-0.1, 3.0], [2.0, -4.0]])
    mask = initial_mask("magnitude", start(dense, 2, padding=0))
    assert mask.view(-1).nonzero().view(-1).tolist() == [3, 5] and dense[0, 0] == 9


@given(st.integers(2, 60), st.integers(2, 6), st.data())
def test_with_fewer_weights_than_rows_the_largest_of_as_many_rows_are_alive(rows, columns, data):
    nnz = data.draw(st.integers(1, rows - 1))
    dense = torch.randn(rows, columns)
    with blocks_of(16):
        mask = initial_mask("magnitude", start(dense, nnz, keep_rows=True))
    assert mask.any(1).sum() == mask.sum() == nnz
    best = dense.abs().max(1).values
    assert torch.equal(dense[mask].abs().sort().values, best.sort().values[-nnz:])
