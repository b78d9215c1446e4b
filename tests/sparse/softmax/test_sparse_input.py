"""The product of mostly zero inputs with a sparse layer against that with the dense one."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.sparse.softmax.sparse_input import is_mostly_zero, times_transposed
from recbole_dsl.sparse.weight import SparseWeight
from tests.toy import blocks_of


@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 70_000),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 60),
    st.integers(0, 2**16),
    st.booleans(),
)
def test_is_that_of_the_dense_layer(n, rows, columns, density, k, seed, collects):
    rows = min(rows, max(1, 200_000 // columns))
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    alive = torch.rand(rows, columns, generator=generator) < density
    weight = SparseWeight.of(dense, alive.view(-1).nonzero().view(-1))
    inputs = torch.zeros(n, columns, dtype=torch.float64)
    at = [torch.randint(size, (k,), generator=generator) for size in (n, columns)]
    inputs[at[0], at[1]] = torch.randn(k, generator=generator, dtype=torch.float64)
    collected = torch.zeros(rows, columns, dtype=torch.float64)
    sink = (lambda ids, gradient: collected.index_add_(0, ids, gradient)) if collects else None
    table = replace(weight.index, values=weight.values, sink=sink)
    with blocks_of(50_000):
        out = times_transposed(inputs, table)
        whole = weight.dense()
        wanted = inputs @ whole.t()
        assert torch.allclose(out, wanted)
        share = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
        (ours,) = torch.autograd.grad(out, [weight.values], share)
    of_values, of_dense = torch.autograd.grad(wanted, [weight.values, whole], share)
    assert torch.allclose(ours, of_values)
    assert not collects or torch.allclose(collected, of_dense)


def test_what_is_mostly_zero():
    inputs = torch.zeros(2, 100)
    inputs[:, 0] = 1
    assert is_mostly_zero(inputs)
    inputs[:, :3] = 1
    assert not is_mostly_zero(inputs)
    assert not is_mostly_zero(torch.zeros(2, 100, requires_grad=True))
    assert not is_mostly_zero(torch.zeros(100)) and not is_mostly_zero(torch.zeros(2, 100, dtype=torch.long))
