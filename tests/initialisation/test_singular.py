"""Truncated singular value decompositions, beside LAPACK's of the whole matrix."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.initialisation.singular import ACCURATE, QUICK, largest_singular, second_singular


def groups(rows, columns, n_groups, noise, seed=0):
    """Rows of a group like the columns of that group: as many large singular values as groups."""
    draw = np.random.default_rng(seed)
    same = np.arange(rows)[:, None] % n_groups == np.arange(columns)[None] % n_groups
    return sp.csr_matrix((draw.random((rows, columns)) < np.where(same, 0.2, noise)).astype(np.float32))


@pytest.mark.parametrize("depth, tolerance", [(ACCURATE, 0.02), (QUICK, 0.05)])
@pytest.mark.parametrize("shape", [(900, 700), (700, 900)])
def test_values_are_those_of_lapack(shape, depth, tolerance):
    matrix = groups(*shape, n_groups=12, noise=0.01)
    left, sizes, right = largest_singular(matrix, 64, seed=1, depth=depth)
    expected = np.linalg.svd(matrix.toarray(), compute_uv=False)[:64]
    # twelve stand out from noise
    assert sizes[:12] == pytest.approx(expected[:12], rel=1e-4)
    assert sizes == pytest.approx(expected, rel=tolerance)
    for side in left, right:
        assert side.T @ side == pytest.approx(np.eye(64), abs=1e-3)


def test_vectors_that_stand_out_span_what_lapacks_span():
    matrix = groups(900, 700, n_groups=12, noise=0.01)
    left, _, right = largest_singular(matrix, 64, seed=1, depth=QUICK)
    exact = np.linalg.svd(matrix.toarray(), full_matrices=False)
    for found, expected in (left, exact[0]), (right, exact[2].T):
        assert np.linalg.norm(found[:, :12].T @ expected[:, :12]) ** 2 == pytest.approx(12, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(rank=st.integers(1, 40), rows=st.integers(280, 500), columns=st.integers(280, 500), seed=st.integers(0, 9))
def test_a_matrix_of_low_rank_has_no_value_twice(rank, rows, columns, seed):
    draw = np.random.default_rng(seed)
    matrix = draw.standard_normal((rows, rank)) @ draw.standard_normal((rank, columns))
    matrix = sp.csr_matrix(matrix.astype(np.float32))
    left, sizes, right = largest_singular(matrix, 64, seed, QUICK)
    assert len(sizes) == rank
    assert sizes == pytest.approx(np.linalg.svd(matrix.toarray(), compute_uv=False)[:rank], rel=1e-3)
    assert np.allclose(left * sizes @ right.T, matrix.toarray(), atol=1e-3 * sizes[0])


def test_the_second_value_is_that_of_lapack():
    matrix = groups(300, 200, n_groups=3, noise=0.05)
    assert second_singular(matrix, seed=0) == pytest.approx(
        np.linalg.svd(matrix.toarray(), compute_uv=False)[1], rel=1e-2
    )
    assert second_singular(sp.csr_matrix(np.ones((1, 4), dtype=np.float32)), seed=0) == pytest.approx(2)
    assert second_singular(sp.csr_matrix((4, 5), dtype=np.float32), seed=0) == 0
