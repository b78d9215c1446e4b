import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from recbole_dsl.initialisation.recode import (
    damped,
    filled,
    folded_in,
    largest_of,
    moved,
    new_rows,
    on_budget,
    recode,
)
from tests.toy import blocks_of

sizes = st.integers(1, 12)


def some_of(random, shape, density):
    """A matrix of which about ``density`` is not zero."""
    return csr_matrix(random.random(shape) * (random.random(shape) < density))


@st.composite
def tables(draw):
    """A matrix whose entries are zero or have distinct magnitudes."""
    rows, columns = draw(sizes), draw(sizes)
    order = draw(st.permutations(range(1, rows * columns + 1)))
    kept = draw(arrays(bool, rows * columns))
    signs = draw(arrays(bool, rows * columns))
    return (np.array(order) * np.where(signs, 1, -1) * kept).reshape(rows, columns).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 150), st.sampled_from([8, 32, 2**20]), st.booleans())
def test_the_largest_are_those_that_sorting_finds(table, budget, block, by_share):
    with blocks_of(block):
        found = on_budget(csr_matrix(table), budget, by_share)
    keys = np.abs(table)
    if by_share:
        keys /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    if by_share or budget >= 2 * len(table):
        keys[np.arange(len(keys)), keys.argmax(1)] *= np.where(keys.max(1) > 0, 1e6, 0)
    keys = keys.ravel()
    best = np.sort(np.argsort(-keys)[:budget])
    best = best[keys[best] > 0]
    dense = found.toarray().ravel()
    assert found.nnz == len(best) == np.count_nonzero(dense)
    assert np.array_equal(np.flatnonzero(dense), best)
    assert np.array_equal(dense[best], table.ravel()[best])


@settings(max_examples=60, deadline=None)
@given(tables(), st.data(), st.sampled_from([8, 2**20]))
def test_filling_keeps_what_is_there_and_is_exact(table, data, block):
    padding = data.draw(st.none() | st.integers(0, len(table) - 1))
    if padding is not None:
        table[padding] = 0
    old = csr_matrix(table)
    room = table.size - (0 if padding is None else table.shape[1])
    budget = data.draw(st.integers(old.nnz, room))
    with blocks_of(block):
        found = filled(old, budget, padding, seed=0)
    assert found.nnz == budget and found.has_sorted_indices
    assert np.array_equal(found.toarray(), old.toarray())
    assert padding is None or budget == table.size or found.indptr[padding] == found.indptr[padding + 1]
    assert filled(old, table.size, padding, seed=0).nnz == table.size


@settings(max_examples=40, deadline=None)
@given(tables(), st.data())
def test_rows_move_to_where_they_are_today(table, data):
    old = np.array(data.draw(st.lists(st.integers(-1, len(table) - 1), max_size=12)), np.int64)
    wanted = np.where(old[:, None] >= 0, table[np.maximum(old, 0)], 0).reshape(len(old), table.shape[1])
    assert np.array_equal(moved(csr_matrix(table), old).toarray(), wanted)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(2, 30),
    st.integers(2, 8),
    st.floats(0.1, 1),
    st.integers(1, 40),
    st.integers(0, 99),
)
def test_codes_are_on_budget_whatever_comes_and_goes(users, items, columns, density, most, seed):
    random = np.random.default_rng(seed)
    interactions = damped(some_of(random, (users, items), 0.3), 0.25)
    sides = [some_of(random, (n, columns), 0.5).astype(np.float32) for n in (users, items)]
    budgets = tuple(max(1, round(density * side.shape[0] * columns)) for side in sides)
    found = recode(*sides, interactions, budgets, steps=2, most=most)
    for code, budget, side in zip(found, budgets, sides):
        assert code.shape == side.shape and code.nnz <= budget
        assert np.isfinite(code.data).all() and code.has_canonical_format
        assert filled(code, budget, None, 0).nnz == budget


def test_with_all_entries_it_is_alternating_least_squares():
    random = np.random.default_rng(0)
    matrix = (random.random((40, 30)) < 0.3).astype(np.float32)
    users, items = (random.standard_normal((n, 5)).astype(np.float32) for n in matrix.shape)
    degrees = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    given_matrix = matrix / (degrees[0] * degrees[1]) ** 0.25
    wanted = [users.astype(float), items.astype(float)]

    def solved(onto, matrix):
        squares = onto.T @ onto
        ridge = np.trace(squares) / 5 * np.eye(5)
        return np.linalg.solve(squares + ridge, onto.T @ matrix.T).T

    for _ in range(3):
        for side, weighed in ((0, given_matrix), (1, given_matrix.T)):
            size = np.linalg.norm((users, items)[side])
            code = solved(wanted[1 - side], weighed)
            wanted[side] = code * size / np.linalg.norm(code)
    found = recode(
        csr_matrix(users), csr_matrix(items), damped(csr_matrix(matrix), 0.25), (users.size, items.size), steps=3
    )
    for code, dense in zip(found, wanted):
        assert code.toarray() == pytest.approx(dense, rel=1e-3, abs=1e-4)


def test_a_new_row_gets_the_code_of_who_did_the_same():
    random = np.random.default_rng(1)
    groups = np.arange(60) % 3
    matrix = ((groups[:, None] == np.arange(45) % 3) & (random.random((60, 45)) < 0.6)).astype(np.float32)
    codes = np.eye(3, dtype=np.float32)
    old, partners = codes[groups], codes[np.arange(45) % 3]
    old[[5, 7]] = 0
    matrix[7] = 0
    new = folded_in(csr_matrix(old), np.array([5, 7]), csr_matrix(partners), damped(csr_matrix(matrix), 0.25), 6)
    dense = new.toarray()
    assert dense[5].argmax() == groups[5] and dense[5].max() == pytest.approx(1, rel=0.3)
    # nobody knows what 7 likes
    assert dense[7] == pytest.approx(old[old.any(1)].mean(0))
    assert not dense[[i for i in range(60) if i not in (5, 7)]].any()


def test_new_rows_have_no_more_entries_than_their_budget():
    found = new_rows((6, 4), np.array([1, 4]), lambda rows: np.ones((len(rows), 4), np.float32), 5)
    assert found.nnz == 5 and set(found.nonzero()[0]) == {1, 4}


def test_equal_entries_are_cut_to_the_budget():
    assert largest_of([(0, np.ones((5, 4), np.float32))], (5, 4), 7).nnz == 7
