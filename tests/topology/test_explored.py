"""The record of what was alive: exact for small tensors, a sample for large ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from recbole_dsl import DSLConfig, DSLError, DynamicTopology, sparsify
from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology import explored as record
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.grow_criteria import GROW, GrowCriterion, random_unfired


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 40), st.data())
def test_a_record_has_every_position_or_a_sample_of_them(rows, columns, sample, data):
    numel = rows * columns
    sets = st.sets(st.integers(0, numel - 1))
    first = sorted(data.draw(sets))
    weight = SparseWeight.of(torch.ones(rows, columns), torch.tensor(first, dtype=torch.int64))
    usual, record._SAMPLE = record._SAMPLE, sample
    try:
        exact, sampled = Explored(weight, True), Explored(weight, False)
    finally:
        record._SAMPLE = usual
    assert sampled.bits.numel() <= 1 + sample // 8 and np.gcd(sampled.stride, columns) == 1
    seen = set(first)
    assert exact.count == sampled.count == len(seen)
    for _ in range(2):
        more = data.draw(sets)
        for one in (exact, sampled):
            one.mark(torch.tensor(sorted(more), dtype=torch.int64))
        found = [p for p in more - seen if p % sampled.stride == 0]
        assert sampled.count == min(numel, sampled.count) and bool(found) <= (sampled.count > len(first))
        seen |= more
    assert exact.count == len(seen)
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, numel))
    assert exact.marked_in(start, stop).tolist() == [p in seen for p in range(start, stop)]
    for bits, count in ((exact.bits, None), (sampled.bits, sampled.count)):
        assert record.record_problem(weight, sampled.stride, bits, count) is None
    old, before = sampled.bits.clone(), sampled.count
    if sampled.stride == 1 or len(old) < len(exact.bits):
        sampled.load(exact.bits, None)
        assert torch.equal(sampled.bits, old) and sampled.count == len(seen), "an old file has every position"
    sampled.load(old, before)
    assert torch.equal(sampled.bits, old) and sampled.count == (len(seen) if sampled.stride == 1 else before)


def test_the_rate_of_a_large_tensor_is_found_from_a_small_sample():
    """Rows are explored as unevenly as popular and rare items are, and few columns more than others."""
    rows, columns, random = 60_000, 64, np.random.default_rng(0)
    weight = SparseWeight((rows, columns), (torch.zeros(s, columns, dtype=torch.bool) for s in _heights(rows)))
    explored, seen = Explored(weight, False), np.zeros(rows * columns, bool)
    for _ in range(4):
        share = np.minimum(1, 30 / (1 + np.arange(rows)) ** 0.5)[:, None] * random.random(columns)
        some = np.flatnonzero((random.random((rows, columns)) < share).reshape(-1))
        explored.mark(torch.from_numpy(some))
        seen[some] = True
    assert 0.1 < seen.mean() < 0.9
    assert explored.bits.numel() <= 2**17
    assert abs(explored.count - seen.sum()) / seen.size < 0.003


def _heights(rows):
    from recbole_dsl.sparse.compressed_rows import row_blocks

    return [stop - start for start, stop in row_blocks(rows, 64)]


@pytest.mark.parametrize("options", [{}, {"topology": "fixed"}, {"grow": "random_unfired"}, {"grow": "random"}])
def test_memory_follows_what_is_asked_for(options):
    model = nn.Embedding(200_000, 64)
    weights = sparsify(model, DSLConfig(sparse_init="uniform")).weights
    config = DSLConfig(update_interval=1, **options)
    topology = DynamicTopology(weights, config, total_steps=10)
    (weight,) = weights.values()
    exact = options.get("grow") == "random_unfired"
    limit = weight.numel // 8 if exact else 0 if config.topology == "fixed" else 2**17
    assert topology.record_bytes == limit if exact else topology.record_bytes <= limit
    assert topology.exploration_rate == weight.density
    state = topology.state_dict()
    saved = sum(bits.numel() for bits in state["explored"].values())
    assert saved == topology.record_bytes
    old = {**state, "explored": {"weight": Explored(weight, True).bits}}
    del old["explored_count"]
    assert topology.record_problem(old["explored"], {}, True) is None
    topology.load_state_dict(old)
    assert topology.exploration_rate == weight.density and topology.record_bytes == saved


def test_a_criterion_of_ones_own_that_does_not_say_what_it_reads_is_told_so(monkeypatch):
    monkeypatch.setattr(record, "_SAMPLE", 100)
    model = nn.Embedding(100, 8)
    weights = sparsify(model, DSLConfig(density=0.2, sparse_init="uniform")).weights
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for name, criterion in (("told", GrowCriterion(random_unfired, needs_record=True)), ("own", GROW["random"])):
        monkeypatch.setitem(GROW, name, criterion)
    monkeypatch.setitem(GROW, "untold", GrowCriterion(random_unfired))
    for grow in ("told", "own", "untold"):
        topology = DynamicTopology(weights, DSLConfig(update_interval=1, grow=grow), total_steps=10)
        topology.attach(optimizer)
        model.zero_grad()
        model(torch.arange(100)).sum().backward()
        if grow == "untold":
            with pytest.raises(DSLError, match=r"^grow: a criterion that reads ever_alive"):
                optimizer.step()
        else:
            optimizer.step()
