"""Adam that leaves what was not read for later, against the one that does not."""

import copy
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import optim

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.optim import lazy_adam
from recbole_dsl.optim.adam_tail import AdamTail
from recbole_dsl.optim.lazy_adam import make_lazy
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.engine import DynamicTopology

ROWS, COLUMNS = 60, 6
OPTIONS = st.builds(
    dict,
    lr=st.sampled_from([1e-4, 1e-2]),
    betas=st.sampled_from([(0.9, 0.999), (0.9, 0.995), (0.7, 0.999)]),
    eps=st.sampled_from([1e-8, 1e-4]),
    maximize=st.booleans(),
)


@contextmanager
def small_ones_too():
    """Weights of few entries as well, and steps that read many of them."""
    usual = lazy_adam._MANY, lazy_adam._PART
    lazy_adam._MANY, lazy_adam._PART = 1, 0
    try:
        yield
    finally:
        lazy_adam._MANY, lazy_adam._PART = usual


def pair(seed, options, dtype=torch.float64):
    """Two equal weights, one of them trained lazily, and their optimizers."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(ROWS, COLUMNS, generator=generator, dtype=dtype)
    positions = torch.randperm(ROWS * COLUMNS, generator=generator)[:100].sort().values
    weights = [SparseWeight.of(dense, positions) for _ in range(2)]
    optimizers = [optim.Adam(weight.parameters(), **options) for weight in weights]
    make_lazy(optimizers[0], weights[:1])
    assert weights[0].reader.pending is not None
    return weights, optimizers


def step(weight, optimizer, seed, before=lambda weight: None):
    """Two look-ups of a few rows, some far more often than others, with gradients of any size."""
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    loss = 0
    for _ in range(2):
        ids = (torch.rand(4, generator=generator) ** 4 * ROWS).long()
        size = 10 ** (-8 * torch.rand(4, 1, generator=generator, dtype=torch.float64))
        upstream = torch.randn(4, COLUMNS, generator=generator, dtype=torch.float64) * size
        loss = loss + (weight.rows(ids) * upstream.to(weight.values.dtype)).sum()
    loss.backward()
    before(weight)
    optimizer.step()
    return loss.item()


def is_close(one, other, share=1e-7):
    return (one - other).abs().max() <= share * other.abs().max()


@given(st.integers(1, 5000), st.integers(0, 250), st.floats(-9, 1), OPTIONS)
def test_the_tail_is_the_sum_of_what_every_step_does(start, steps, magnitude, options):
    (beta1, beta2), lr, eps = options["betas"], options["lr"], options["eps"]
    tail = AdamTail(lr, beta1, beta2, eps)
    assert tail.is_accurate()
    first, root = torch.tensor([-0.3, 0.1, 1.0], dtype=torch.float64), torch.tensor([0.1, 1.0, 0.0]).double()
    first, root = first * 10**magnitude, root * 10**magnitude
    moved, m, v = 0, first.clone(), root**2
    for t in range(start + 1, start + steps + 1):
        m, v = m * beta1, v * beta2
        moved = moved + lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)
    left = tail.after(start + steps, m, v.sqrt())
    whole = tail.after(start, first, root)
    assert ((whole - left - moved).abs() <= 2e-7 * whole.abs()).all()


@settings(max_examples=8)
@given(st.integers(0, 99), OPTIONS, st.sets(st.integers(0, 299), max_size=6), st.integers(0, 250))
def test_hundreds_of_steps_give_adams_weights_and_moments_whenever_they_are_read(seed, options, reads, slower):
    with small_ones_too():
        weights, optimizers = pair(seed, options)
        for number in range(300):
            if number == slower:
                for optimizer in optimizers:
                    optimizer.param_groups[0]["lr"] *= 0.5
            losses = [step(*one, number) for one in zip(weights, optimizers)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-9)
            if number in reads:
                assert is_close(weights[0].dense(), weights[1].dense())
        with torch.no_grad():
            some = torch.tensor([[0, 1], [40, 0]])
            assert is_close(weights[0].rows(some), weights[1].rows(some))
        lazy, plain = (optimizer.state_dict()["state"][0] for optimizer in optimizers)
        assert set(lazy) == set(plain) and lazy["step"] == plain["step"]
        assert all(is_close(lazy[name], plain[name]) for name in ("exp_avg", "exp_avg_sq"))
        assert weights[0].reader.pending is not None and is_close(weights[0].values, weights[1].values)


READS = {
    "a state": lambda w: w.state_dict()["values"],
    "a copy": lambda w: copy.deepcopy(w).values,
    "the data": lambda w: w.values.data,
    "a sum": lambda w: torch.stack([w.values.detach()]).sum(0),
    "a list": lambda w: torch._foreach_mul([w.values.detach()], 1.0)[0],
    "the view": lambda w: w.view()[w.dense() != 0],
}


@pytest.mark.parametrize("how", READS)
def test_every_way_to_read_values_sees_them_up_to_date(how):
    with small_ones_too():
        weights, optimizers = pair(3, {"lr": 0.05})
        for number in range(40):
            for one in zip(weights, optimizers):
                step(*one, number)
        read = [READS[how](weight) for weight in weights]
        assert is_close(*read)


@pytest.mark.parametrize("budget", [None, "global"])
def test_topology_updates_are_those_of_adam(budget):
    positions = []
    for lazily in (True, False):
        torch.manual_seed(0)
        # in float32 two weights may be pruned in another order
        model = torch.nn.ModuleList([torch.nn.Embedding(ROWS, 8), torch.nn.Embedding(ROWS, 8, padding_idx=0)])
        model.double()
        config = DSLConfig(density=0.3, sparse_init="uniform", update_interval=20, budget=budget)
        weights = sparsify(model, config).weights
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        if lazily:
            with small_ones_too():
                make_lazy(optimizer, weights.values())
        topology = DynamicTopology(weights, config, total_steps=140)
        topology.attach(optimizer)
        generator = torch.Generator().manual_seed(1)
        with small_ones_too():
            for _ in range(140):
                users, items = torch.randint(ROWS, (2, 6), generator=generator)
                optimizer.zero_grad()
                ((model[0](users) * model[1](items)).sum(1) - 1).pow(2).mean().backward()
                optimizer.step()
        assert len(topology.updates) == 5
        assert all((weight.reader.pending is not None) == lazily for weight in weights.values())
        positions.append([(w.positions(), w.values.detach()) for w in weights.values()])
    for (lazy, values), (plain, wanted) in zip(*positions):
        assert torch.equal(lazy, plain) and torch.allclose(values, wanted, atol=1e-7)


def test_a_run_goes_on_from_its_state_to_the_bit():
    with small_ones_too():
        (weight, other), (optimizer, other_optimizer) = pair(0, {"lr": 0.01})
        for number in range(30):
            step(weight, optimizer, number)
        saved = copy.deepcopy((weight.state_dict(), optimizer.state_dict()))
        make_lazy(other_optimizer, [other])
        step(other, other_optimizer, 99)
        other.load_state_dict(saved[0])
        other_optimizer.load_state_dict(saved[1])
        for number in range(30, 60):
            assert step(weight, optimizer, number) == step(other, other_optimizer, number)
        assert torch.equal(weight.values, other.values)


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"amsgrad": True}, {"betas": (0.5, 0.1)}])
def test_what_has_no_closed_form_is_left_to_pytorch(options):
    with small_ones_too():
        weight = SparseWeight.of(torch.randn(ROWS, COLUMNS), torch.arange(0, 200, 2))
        make_lazy(optim.Adam(weight.parameters(), **options), [weight])
        make_lazy(optim.AdamW(weight.parameters()), [weight])
    make_lazy(optim.Adam(weight.parameters()), [weight])
    assert weight.reader.pending is None


def test_a_dense_gradient_ends_it_and_training_goes_on_as_adams():
    with small_ones_too():
        weights, optimizers = pair(1, {"lr": 0.01})
        for number in range(40):
            for weight, optimizer in zip(weights, optimizers):
                if number == 20:
                    optimizer.zero_grad()
                    weight.dense().pow(2).sum().backward()
                    optimizer.step()
                step(weight, optimizer, number)
        assert weights[0].reader.pending is None and is_close(weights[0].values, weights[1].values)
        assert weights[0].values.grad.is_sparse is False


CLIPS = {
    "norm": lambda w: torch.nn.utils.clip_grad_norm_(w.parameters(), 0.1),
    "value": lambda w: torch.nn.utils.clip_grad_value_(w.parameters(), 0.1),
    "by hand": lambda w: w.values.grad.clamp_(-0.1, 0.1),
}


@pytest.mark.parametrize("how", CLIPS)
def test_a_gradient_that_is_read_is_the_dense_one_and_what_is_done_to_it_counts(how):
    with small_ones_too():
        weights, optimizers = pair(2, {"lr": 0.01})
        for number in range(20):
            for weight, optimizer in zip(weights, optimizers):
                step(weight, optimizer, number, CLIPS[how])
        assert is_close(weights[0].values, weights[1].values)


def test_a_table_that_is_looked_up_and_scored_whole_trains_as_by_adam():
    with small_ones_too():
        found = []
        for lazily in (True, False):
            torch.manual_seed(0)
            model = torch.nn.Embedding(1200, 64)
            weights = sparsify(model, DSLConfig(density=0.1, sparse_init="uniform")).weights.values()
            optimizer = optim.Adam(model.parameters(), lr=0.01)
            if lazily:
                make_lazy(optimizer, weights)
            ids = torch.arange(0, 1200, 7)
            for number in range(6):
                optimizer.zero_grad()
                hidden = model(ids)
                scores = hidden @ model.weight.t() if number % 2 else hidden.pow(2)
                loss = torch.nn.functional.cross_entropy(scores, ids % 64) if number % 2 else scores.sum()
                loss.backward()
                optimizer.step()
            found.append(model.weight.detach().clone())
        assert is_close(*found, 1e-5)
