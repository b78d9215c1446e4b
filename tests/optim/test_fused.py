"""The optimizers against PyTorch's plain ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import optim

from recbole_dsl.optim.fused import SparseAdam, distinct_entries, make_fast
from recbole_dsl.sparse.weight import SparseWeight


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.SGD, optim.Adagrad, optim.RMSprop])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_form_trains_alike_with_the_same_options(kind, dtype):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, generator=generator, dtype=dtype)
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    plain, fast = (kind([weight], lr=0.02, weight_decay=0.01) for weight in weights)
    make_fast(fast)
    assert type(fast) is kind and fast.param_groups[0].get("fused", kind is optim.RMSprop)
    for _ in range(20):
        gradient = torch.randn(50, generator=generator, dtype=dtype)
        for weight, optimizer in zip(weights, (plain, fast)):
            weight.grad = gradient.clone()
            optimizer.step()
    assert torch.allclose(weights[0], weights[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [optim.Adam, optim.SGD, optim.SparseAdam])
def test_what_has_the_optimizer_already_goes_on_acting_on_it(kind):
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = kind([weight], lr=1.0)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    make_fast(optimizer)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    weight.grad = torch.sparse_coo_tensor([[0]], [1.0], (4,)) if kind is optim.SparseAdam else torch.ones(4)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1) and weight[0] < 0.9 and called == [1]


def test_a_form_that_the_user_chose_stays():
    for chosen in ({"foreach": True}, {"fused": False, "differentiable": True}):
        optimizer = optim.Adam([torch.nn.Parameter(torch.ones(4))], **chosen)
        before = dict(optimizer.param_groups[0])
        make_fast(optimizer)
        assert optimizer.param_groups[0] == before


look_ups = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4)


@given(look_ups)
def test_the_entries_of_several_look_ups_are_added_up(ids):
    weight = SparseWeight.of(torch.randn(10, 4), torch.tensor([0, 1, 5, 8, 10, 11, 20, 30, 31, 39]))
    gradients = []
    for sparse in (False, True):
        weight.values.grad, weight.reader.sparse_gradient = None, sparse
        upstream = torch.Generator().manual_seed(0)
        # the rows outnumber the ids of a single look-up, so that none reads the whole table
        looked_up = [weight.rows(torch.tensor(some[:9], dtype=torch.long)) for some in ids]
        sum((rows * torch.randn(rows.shape, generator=upstream)).sum() for rows in looked_up).backward()
        gradients.append(weight.values.grad)
    dense, sparse = gradients
    assert sparse.is_sparse and not dense.is_sparse
    assert torch.allclose(sparse.to_dense(), dense, atol=1e-6)
    index, values = distinct_entries(sparse)
    assert len(set(index.tolist())) == len(index)
    assert torch.allclose(torch.zeros(10).index_copy(0, index, values), dense, atol=1e-6)


@pytest.mark.parametrize("maximize", [False, True])
def test_sparse_adam_is_pytorchs_on_sparse_gradients_and_adam_on_dense_ones(maximize):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(40, generator=generator)
    options = {"lr": 0.02, "betas": (0.8, 0.9), "maximize": maximize}
    looked_up, read = ([torch.nn.Parameter(start.clone()) for _ in range(2)] for _ in range(2))
    ours = SparseAdam([looked_up[0], read[0]], **options)
    references = [optim.SparseAdam(looked_up[1:], **options), optim.Adam(read[1:], **options)]
    for _ in range(20):
        index = torch.randint(40, (1, 15), generator=generator)
        some = torch.sparse_coo_tensor(index, torch.randn(15, generator=generator), (40,))
        all_ = torch.randn(40, generator=generator)
        for pair, gradient in ((looked_up, some), (read, all_)):
            for parameter in pair:
                parameter.grad = gradient.clone()
        for optimizer in (ours, *references):
            optimizer.step()
    assert torch.allclose(looked_up[0], looked_up[1], atol=1e-6)
    assert torch.allclose(read[0], read[1], atol=1e-6)


def test_rows_without_a_look_up_are_left_alone():
    weight = SparseWeight.of(torch.randn(10, 4), torch.arange(40)[::2])
    weight.reader.sparse_gradient = True
    optimizer = SparseAdam(weight.parameters(), lr=0.1)
    before = weight.dense().detach()
    for _ in range(3):
        optimizer.zero_grad()
        weight.rows(torch.tensor([2, 7])).pow(2).sum().backward()
        optimizer.step()
    changed = (weight.dense() != before).any(1).nonzero().view(-1)
    assert changed.tolist() == [2, 7]
