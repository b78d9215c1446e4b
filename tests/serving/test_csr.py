"""Compressed rows: whatever is taken of them is what SciPy, or Python's lists, take."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbole_dsl.serving import Recommender
from recbole_dsl.serving.csr import CSR, ascend, checked_dense, checked_matrix, column_type
from tests.serving.artifacts import make

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 6))
MATRICES = SHAPES.flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0, 0, 1, -2, 3.5]).map(float))
)
LISTS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


def forms(dense):
    """``dense`` in each way that it can be held."""
    scipy = sp.csr_array(dense)
    return [
        CSR.of_nonzero(dense),
        CSR.of_full(dense),
        checked_dense(dense),
        checked_matrix(scipy.data, scipy.indices, scipy.indptr, dense.shape[1]),
    ]


@given(MATRICES, st.data())
def test_rows_of_a_matrix_are_those_of_scipy(dense, data):
    n_rows = len(dense)
    rows = np.array(data.draw(st.lists(st.integers(0, n_rows - 1), max_size=9)), np.int64)
    first = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(first, n_rows))
    for matrix in forms(dense):
        assert matrix.n_rows == n_rows and (matrix.dense() == dense).all()
        assert (matrix.to_scipy().toarray() == dense).all()
        assert (matrix.take(rows).dense() == dense[rows]).all()
        assert (matrix.between(first, stop).dense() == dense[first:stop]).all()
        assert (matrix.dense(first, stop) == dense[first:stop]).all()
        rebuilt = np.zeros_like(dense)
        rebuilt[matrix.row_of_entry(), matrix.column_of_entry()] = matrix.values
        assert (rebuilt == dense).all() and matrix.density == len(matrix.values) / dense.size
        assert matrix.is_full or ascend(matrix.columns, matrix.offsets)


@given(LISTS, st.data())
def test_lists_are_those_of_python(lists, data):
    held = CSR.of_lists(lists)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=9)) if lists else []
    first = data.draw(st.integers(0, len(lists)))
    expected = {"take": [lists[row] for row in rows], "between": lists[first : first + 2]}
    found = {"take": held.take(np.array(rows, np.int64)), "between": held.between(first, first + 2)}
    for name, one in found.items():
        ends = one.offsets.tolist()
        assert [one.columns[a:b].tolist() for a, b in pairwise(ends)] == expected[name]
    assert held.row_of_entry().tolist() == [row for row, of_row in enumerate(lists) for _ in of_row]
    assert ascend(held.columns, held.offsets) == all(a < b for of in lists for a, b in pairwise(of))


def test_columns_take_the_smallest_type():
    assert [column_type(n) for n in (0, 1, 256, 257, 2**16, 2**16 + 1)] == [np.uint8] * 3 + [np.uint16] * 2 + [
        np.uint32
    ]


def test_the_earlier_name_of_user_histories_is_kept_with_a_warning():
    recommender = Recommender.load(make().write())
    with pytest.warns(DeprecationWarning, match=r"seen is now Recommender\.user_histories"):
        assert recommender.seen is recommender.user_histories
