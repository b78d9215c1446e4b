"""Sparse codes that users and items find from each other's."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.initialisation import codes
from recbole_dsl.initialisation.codes import largest, spread


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(1, 25),
    items=st.integers(1, 25),
    columns=st.integers(1, 12),
    share=st.floats(0, 1),
    densities=st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)),
    steps=st.integers(1, 4),
)
def test_codes_are_finite_of_norm_1_and_as_dense_as_asked(users, items, columns, share, densities, steps):
    draw = np.random.default_rng(0)
    matrix = sp.csr_matrix((draw.random((users, items)) < share).astype(np.float32))
    sides = spread(matrix, draw.standard_normal((items, columns)).astype(np.float32), densities, steps)
    for side, n, density in zip(sides, (users, items), densities):
        assert side.shape == (n, columns) and np.isfinite(side).all()
        norms = np.linalg.norm(side, axis=1)
        assert np.all((np.abs(norms - 1) < 1e-4) | (norms < 1e-4))
        # each row has one, even if there are fewer weights than rows
        assert (side != 0).sum() <= max(n, round(density * side.size))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 8), density=st.floats(0.01, 1), by_share=st.booleans())
def test_the_largest_are_those_of_each_row_and_then_of_all(rows, columns, density, by_share):
    dense = np.random.default_rng(3).standard_normal((rows, columns)).astype(np.float32)
    n = max(1, round(density * dense.size))
    sizes = np.abs(dense / np.linalg.norm(dense, axis=1, keepdims=True) if by_share else dense)
    if by_share or n >= 2 * rows:
        sizes[np.arange(rows), sizes.argmax(1)] += 100
    alive = largest(dense, density, by_share) != 0
    assert alive.sum() == n
    assert sizes[alive].min() >= sizes[~alive].max(initial=0)


def test_items_of_a_group_get_one_code_and_groups_get_different_ones():
    groups, size = 12, 5
    matrix = sp.kron(sp.identity(groups), np.ones((size, size)), format="csr").astype(np.float32)
    first = np.random.default_rng(0).standard_normal((groups * size, 16)).astype(np.float32)
    users, items = spread(matrix, first, (0.2, 0.2), 3)
    alike = items @ items.T
    same = np.arange(groups * size)[:, None] // size == np.arange(groups * size) // size
    assert alike[same].min() > 0.95
    assert alike[~same].mean() < 0.1
    assert (users * items).sum(1).min() > 0.9


def test_a_column_that_is_large_in_all_rows_is_chosen_by_fewer_than_without_balance(monkeypatch):
    draw = np.random.default_rng(0)
    matrix = sp.csr_matrix((draw.random((200, 150)) < 0.05).astype(np.float32))
    first = draw.standard_normal((150, 16)).astype(np.float32)
    first[:, 0] += 0.5
    shares = []
    for balance in (codes._BALANCE, 0):
        monkeypatch.setattr(codes, "_BALANCE", balance)
        shares.append((spread(matrix, first, (0.125, 0.125), 8)[1][:, 0] != 0).mean())
    assert shares[0] < 0.6 * shares[1]


@pytest.mark.parametrize("by_share", [False, True])
def test_rows_of_zeros_stay_zero(by_share):
    rows = np.zeros((4, 3), dtype=np.float32)
    rows[1, 2] = 2
    assert np.array_equal(largest(rows, 0.5, by_share), rows)
