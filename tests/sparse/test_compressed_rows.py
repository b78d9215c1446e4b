"""Compressed rows against SciPy's, and every way to read them against the dense matrix."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix

from recbole_dsl.sparse.compressed_rows import CompressedRows, new_offsets, smallest_unsigned
from recbole_dsl.sparse.softmax.cross_entropy import compiled_products
from tests.toy import blocks_of


@st.composite
def matrices(draw):
    """Compressed rows of a drawn density and column type, the same in SciPy, and a source of random numbers."""
    shape = draw(st.integers(1, 30)), draw(st.sampled_from([1, 7, 256, 257, 70_000]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**16)))
    n = draw(st.integers(0, 60))
    rows, columns = (numbers.integers(0, size, n) for size in shape)
    stock = coo_matrix((numbers.standard_normal(n), (rows, columns)), shape).tocsr()
    stock.sum_duplicates()
    offsets = torch.from_numpy(stock.indptr).to(new_offsets(0, stock.nnz).dtype)
    columns = torch.from_numpy(stock.indices.astype(np.int64)).to(smallest_unsigned(shape[1]))
    return CompressedRows(shape[1], columns, offsets, torch.from_numpy(stock.data)), stock, numbers


@given(matrices(), st.data())
def test_parts_and_products_are_those_of_scipy(drawn, data):
    matrix, stock, numbers = drawn
    start = data.draw(st.integers(0, matrix.n_rows - 1))
    stop = data.draw(st.integers(start, matrix.n_rows))
    part = matrix.narrow(start, stop)
    assert part.shape == (stop - start, matrix.n_columns) and part.first_row == start
    factor = torch.from_numpy(numbers.standard_normal((matrix.n_columns, 3)))
    for one, other in ((matrix, stock), (part, stock[start:stop]), (part.narrow(0, 0), stock[:0])):
        assert np.array_equal(one.dense().numpy(), other.toarray())
        assert np.allclose(one.times(factor).numpy(), other @ factor.numpy())
        assert np.array_equal(one.rows.numpy(), np.repeat(np.arange(other.shape[0]), np.diff(other.indptr)))
    with blocks_of(data.draw(st.sampled_from([8, 2000]))):
        found = [part.positions_in(*block) + block[0] * part.n_columns for block in part.blocks()]
        assert torch.equal(torch.cat([torch.zeros(0, dtype=torch.int64), *found]), part.positions())


@given(matrices(), st.booleans())
def test_gradients_of_a_product_are_those_of_the_dense_one(drawn, compiles):
    matrix, _, numbers = drawn
    matrix = replace(matrix, loops=compiled_products() if compiles else None)
    left, right = (torch.from_numpy(numbers.standard_normal((size, 2))) for size in matrix.shape)
    dense = matrix.dense().requires_grad_()
    operand = right.clone().requires_grad_()
    wanted = torch.autograd.grad(dense @ operand, [dense, operand], left)
    out = torch.empty(matrix.n_rows, 2, dtype=torch.float64)
    assert torch.allclose(matrix.times(right, out), dense @ right)
    of_values, of_matrix = torch.zeros_like(matrix.values), torch.zeros_like(right)
    matrix.add_gradients(left, right, of_values, of_matrix)
    assert torch.allclose(of_values, wanted[0].view(-1)[matrix.positions()])
    assert torch.allclose(of_matrix, wanted[1])


@given(matrices())
def test_a_matrix_of_unordered_entries_and_its_transpose(drawn):
    _, stock, numbers = drawn
    entries = stock.tocoo()
    order = numbers.permutation(entries.nnz)
    rows, columns, values = (torch.from_numpy(one[order]) for one in (entries.row, entries.col, entries.data))
    made = CompressedRows.from_coo(rows.long(), columns.long(), values, stock.shape)
    assert np.array_equal(made.dense().numpy(), stock.toarray())
    assert np.array_equal(made.transposed.dense().numpy(), stock.T.toarray())
    assert torch.equal(made.transposed.in_csr.to_dense(), made.dense().T)


@given(matrices(), st.lists(st.integers(0, 29), max_size=20))
def test_rows_are_read_in_two_ways(drawn, ids):
    matrix, stock, _ = drawn
    ids = torch.tensor([i % matrix.n_rows for i in ids], dtype=torch.int64)
    assert np.array_equal(matrix.padded_rows(ids).numpy(), stock.toarray()[ids.numpy()])
    which, slots, columns = matrix.entries_of(ids)
    out = torch.zeros(len(ids), matrix.n_columns, dtype=torch.float64)
    out[which, columns] = matrix.values[slots]
    assert np.array_equal(out.numpy(), stock.toarray()[ids.numpy()])


def test_what_is_known_of_an_index_is_shared_by_other_values_and_not_by_parts():
    matrix = CompressedRows(3, torch.tensor([0, 2, 1], dtype=torch.uint8), torch.tensor([0, 2, 3]), torch.ones(3))
    positions = matrix.positions()
    assert replace(matrix, values=torch.zeros(3)).positions() is positions
    assert matrix.narrow(1, 2).positions().tolist() == [1] and matrix.longest_row == 2
