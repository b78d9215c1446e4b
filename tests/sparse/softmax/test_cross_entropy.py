"""The loss over a sparse table against PyTorch's on the dense one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from recbole_dsl.sparse.softmax import cross_entropy as tables
from recbole_dsl.sparse.softmax.cross_entropy import Targets, cross_entropy, soft_cross_entropy
from recbole_dsl.sparse.weight import SparseWeight

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


@st.composite
def problems(draw):
    """A sparse weight, vectors, targets with repeats and a bias."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    rows, columns, n = draw(st.integers(1, 900)), draw(st.sampled_from([1, 3, 64, 300])), draw(st.integers(1, 9))
    density = draw(st.sampled_from([0.0, 0.05, 0.25, 0.6]))
    # scores of some hundreds have an error of 1e-4 in single precision
    size = draw(st.sampled_from([0.1, 1.0] if dtype == torch.float32 else [0.1, 30.0]))
    dense = torch.randn(rows, columns, dtype=dtype, generator=generator) * size
    alive = torch.rand(rows, columns, generator=generator) < density
    alive[:: draw(st.integers(1, 5))] = False
    weight = SparseWeight.of(dense, alive.view(-1).nonzero().view(-1))
    vectors = torch.randn(n, columns, dtype=dtype, generator=generator).requires_grad_()
    target = torch.randint(rows, (n,), generator=generator)
    bias = torch.randn(rows, dtype=dtype, generator=generator).requires_grad_() if draw(st.booleans()) else None
    return weight, vectors, target, bias, generator


def table_of(weight, sink=None):
    return replace(weight.index, values=weight.values, sink=sink)


def leaves(weight, vectors, bias):
    return [weight.values, vectors] if bias is None else [weight.values, vectors, bias]


def compare(loss, wanted, of, generator):
    tolerance = TOLERANCE[wanted.dtype]
    if not wanted.isfinite().all():
        # a mean over no weight
        assert not loss.isfinite().all()
        return
    assert torch.allclose(loss, wanted, rtol=tolerance, atol=tolerance)
    share = torch.rand(wanted.shape, generator=generator, dtype=wanted.dtype)
    # some samples of no weight, as masked ones have
    share = torch.where(share < 0.3, 0, share) if wanted.dim() else share
    for ours, dense in zip(torch.autograd.grad(loss, of, share), torch.autograd.grad(wanted, of, share)):
        largest = dense.abs().amax().item() if dense.numel() else 0
        assert torch.allclose(ours, dense, rtol=tolerance, atol=tolerance * (largest + 0.1))


@given(
    problems(),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([2, 256]),
    st.booleans(),
)
def test_is_that_of_pytorch(problem, reduction, smoothing, weighs, ignores, together, compiles):
    weight, vectors, target, bias, generator = problem
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if weighs:
        options["weight"] = torch.rand(weight.n_rows, generator=generator, dtype=vectors.dtype)
        options["weight"][target[0]] = 0
    if ignores:
        options["ignore_index"] = int(target[-1])
    before = tables.SAMPLES, tables._WORTH_COMPILING
    tables.SAMPLES, tables._WORTH_COMPILING = together, 0 if compiles else before[1]
    try:
        loss = cross_entropy(vectors, table_of(weight), bias, target, **options)
        wanted = F.cross_entropy(F.linear(vectors, weight.dense(), bias), target, **options)
        compare(loss, wanted, leaves(weight, vectors, bias), generator)
    finally:
        tables.SAMPLES, tables._WORTH_COMPILING = before


@given(problems(), st.integers(0, 30))
def test_shares_of_many_rows(problem, k):
    weight, vectors, _, bias, generator = problem
    n, rows = len(vectors), weight.n_rows
    samples, of_rows = (torch.randint(size, (k,), generator=generator) for size in (n, rows))
    shares = torch.rand(k, generator=generator, dtype=vectors.dtype)
    loss = soft_cross_entropy(vectors, table_of(weight), bias, Targets.of(n, samples, of_rows, shares))
    dense = vectors.new_zeros(n, rows).index_put_((samples, of_rows), shares, accumulate=True)
    wanted = -(F.log_softmax(F.linear(vectors, weight.dense(), bias), 1) * dense).sum(1)
    compare(loss, wanted, leaves(weight, vectors, bias), generator)


@given(problems(), st.booleans())
def test_the_products_of_dense_chunks_are_the_same(problem, collects):
    weight, vectors, target, bias, generator = problem
    collected = torch.zeros(weight.n_rows, weight.n_columns, dtype=vectors.dtype)
    sink = (lambda ids, gradient: collected.index_add_(0, ids, gradient)) if collects else None
    before, tables._DENSE = tables._DENSE, 0 if collects else -1
    try:
        loss = cross_entropy(vectors, table_of(weight, sink), bias, target)
    finally:
        tables._DENSE = before
    dense = weight.dense()
    wanted = F.cross_entropy(F.linear(vectors, dense, bias), target)
    if collects:
        loss.backward(retain_graph=True)
        (whole,) = torch.autograd.grad(wanted, [dense], retain_graph=True)
        assert torch.allclose(collected, whole, rtol=1e-4, atol=1e-5)
    compare(loss, wanted, leaves(weight, vectors, bias), generator)


@given(problems(), st.data())
def test_some_of_the_rows(problem, data):
    weight, vectors, target, bias, generator = problem
    start = data.draw(st.integers(0, weight.n_rows - 1))
    stop = data.draw(st.integers(start + 1, weight.n_rows))
    target = target % (stop - start)
    bias = None if bias is None else bias[start:stop].detach().requires_grad_()
    loss = cross_entropy(vectors, table_of(weight).narrow(start, stop), bias, target)
    wanted = F.cross_entropy(F.linear(vectors, weight.dense()[start:stop], bias), target)
    compare(loss, wanted, leaves(weight, vectors, bias), generator)


def test_nothing_counts():
    weight = SparseWeight.of(torch.randn(5, 3), torch.arange(4))
    vectors = torch.randn(2, 3, requires_grad=True)
    target = torch.tensor([-100, -100])
    assert cross_entropy(vectors, table_of(weight), None, target).isnan()
    assert cross_entropy(vectors, table_of(weight), None, target, reduction="sum") == 0
    assert cross_entropy(vectors, table_of(weight), None, target, reduction="none").tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_target_that_is_no_row(wrong):
    weight = SparseWeight.of(torch.randn(5, 3), torch.arange(4))
    with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
        cross_entropy(torch.randn(2, 3), table_of(weight), None, torch.tensor([0, wrong]))


def test_a_bias_that_excludes_rows():
    weight = SparseWeight.of(torch.randn(700, 3), torch.arange(100))
    vectors = torch.randn(2, 3, requires_grad=True)
    bias = torch.zeros(700)
    bias[:650] = -torch.inf
    target = torch.tensor([660, 699])
    wanted = F.cross_entropy(F.linear(vectors, weight.dense(), bias), target)
    loss = cross_entropy(vectors, table_of(weight), bias, target)
    assert torch.allclose(loss, wanted)
    assert torch.allclose(*(torch.autograd.grad(one, [weight.values])[0] for one in (loss, wanted)), atol=1e-7)
