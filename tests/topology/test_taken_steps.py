"""With a gradient scaler the topology is that of the steps that were taken, with the gradients as they were."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.amp import GradScaler

from recbole_dsl import DSLConfig, sparsify
from recbole_dsl.topology import taken_steps
from recbole_dsl.topology.engine import DynamicTopology
from recbole_dsl.topology.gradients import GradientBuffer
from tests.toy import Toy, alive_positions, toy_batch, toy_loss

STEPS = 14
options = st.fixed_dictionaries(
    {
        "grow": st.sampled_from(["gradient", "momentum", "random"]),
        "prune": st.sampled_from(["magnitude", "taylor"]),
        "budget": st.sampled_from([None, "global"]),
        "grow_window": st.sampled_from([1, 3, 200]),
        "grow_memory": st.sampled_from([0.7, 1.0]),
    }
)


class Loop:
    """A training loop as PyTorch's documentation has it, with what may differ."""

    def __init__(self, chosen, fused, total_steps):
        torch.manual_seed(0)
        self.model = Toy(torch.float32)
        config = DSLConfig(density=0.3, update_interval=3, update_ratio=0.4, stop_fraction=1, **chosen)
        self.report = sparsify(self.model, config)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01, fused=fused)
        self.topology = DynamicTopology(self.report.weights, config, total_steps)
        self.topology.attach(self.optimizer)
        # filled anew for each part of a batch
        self.batch = toy_batch(torch.Generator())

    def step(self, batches, scaler=None, factor=1.0, to_none=True, unscales=False):
        scaler = scaler or GradScaler("cpu", enabled=False)
        self.optimizer.zero_grad(set_to_none=to_none)
        for batch in batches:
            for tensor, new in zip(self.batch, batch):
                tensor.copy_(new)
            users, items, wanted = self.batch
            loss = toy_loss(self.model, (users, items, wanted.float()))
            scaler.scale(loss * factor).backward()
        if unscales:
            scaler.unscale_(self.optimizer)
        scaler.step(self.optimizer)
        scaler.update()

    def result(self):
        alive = {name: weight.positions().tolist() for name, weight in self.report.weights.items()}
        return self.topology.step, self.topology.updates, alive


@given(
    options,
    st.booleans(),
    st.sets(st.integers(0, STEPS - 1), max_size=4),
    st.fixed_dictionaries({"to_none": st.booleans(), "unscales": st.booleans()}),
    st.integers(1, 2),
    st.sampled_from([3, 100]),
    st.sampled_from([0, 2**22]),
)
@settings(max_examples=25)
def test_steps_that_a_scaler_leaves_out_leave_no_trace(chosen, fused, overflows, form, parts, growth, few):
    usual, taken_steps._FEW = taken_steps._FEW, few
    try:
        generator = torch.Generator().manual_seed(1)
        batches = [[toy_batch(generator) for _ in range(parts)] for _ in range(STEPS)]
        good = [batch for number, batch in enumerate(batches) if number not in overflows]
        plain, scaled = (Loop(chosen, fused, len(good)) for _ in range(2))
        for batch in good:
            plain.step(batch)
        for number, batch in enumerate(batches):
            if number % 6 == 0:
                # RecBole makes one for each epoch
                scaler = GradScaler("cpu", init_scale=2.0**20, growth_interval=growth)
            scaled.step(batch, scaler, 1e37 if number in overflows else 1.0, **form)
        assert scaled.result() == plain.result()
        for one, other in zip(scaled.model.parameters(), plain.model.parameters()):
            assert torch.allclose(one, other, atol=1e-6)
    finally:
        taken_steps._FEW = usual


def test_positions_that_overflow_in_half_precision_grow_all_the_same():
    """The gradients of alive entries are finite, so that the step is taken."""
    model = nn.Embedding(4, 20)
    config = DSLConfig(
        density=0.5,
        sparse_init="uniform",
        update_interval=4,
        update_ratio=0.25,
        schedule="constant",
        stop_fraction=1,
    )
    (weight,) = sparsify(model, config).weights.values()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    DynamicTopology({"weight": weight}, config, total_steps=9).attach(optimizer)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    before = alive_positions(weight)
    free = [p for p in range(20) if p not in before]
    for step in range(4):
        factors = torch.full((4, 20), 0.01)
        factors[0, free] = 100.0 if step == 1 else 10.0
        optimizer.zero_grad()
        scaler.scale((model(torch.arange(4)).half() * factors.half()).float().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    grown = alive_positions(weight) - before
    assert len(grown) == 10 and len(grown & set(free)) == min(10, len(free))
    assert scaler.get_scale() == 2.0**10


@given(st.lists(st.sampled_from([1.0, -2.0, float("nan"), float("inf"), -float("inf")]), min_size=12, max_size=12))
def test_what_is_not_finite_is_not_added(numbers):
    gradient = torch.tensor(numbers).view(4, 3)
    buffers = [GradientBuffer(4, 3, torch.zeros(0), 1.0) for _ in range(2)]
    for ids in (None, torch.tensor([3, 0, 0, 1])):
        buffers[0].add(ids, gradient)
        buffers[1].add(ids, gradient.nan_to_num(0, 0, 0))
    assert torch.equal(buffers[0].sums, buffers[1].sums)


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_that_is_no_number_leaves_no_trace_where_the_loop_goes_on_without_it(fused):
    generator = torch.Generator().manual_seed(1)
    batches = [toy_batch(generator) for _ in range(STEPS)]
    plain, other = (Loop({}, fused, STEPS) for _ in range(2))
    for number, (users, items, wanted) in enumerate(batches):
        plain.step([(users, items, wanted)])
        if number % 3 == 1:
            toy_loss(other.model, (users, items, wanted.float() * float("nan"))).backward()
        other.step([(users, items, wanted)])
    assert other.result() == plain.result()


def test_memory_for_gradients_that_wait_is_counted_and_bounded(monkeypatch):
    monkeypatch.setattr(taken_steps, "_FEW", 0)
    peaks = []
    for parts in (2, 30):
        generator = torch.Generator().manual_seed(1)
        loop, scaler = Loop({}, False, STEPS), GradScaler("cpu")
        for _ in range(5):
            loop.step([toy_batch(generator) for _ in range(parts)], scaler)
        peaks.append(loop.topology.growth_peak_bytes)
    dense = 4 * sum(weight.numel for weight in loop.report.weights.values())
    assert dense < peaks[1] <= peaks[0] + dense
