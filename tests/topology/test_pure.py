"""The small functions: budgets, initialisers, schedules, criteria, the record of what was alive."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.topology.budget import BUDGETS, TensorSize, allocate
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.initialise import INITIALISERS, sample
from recbole_dsl.topology.prune import PRUNE, AliveWeights, best_of_each_row, least_important
from recbole_dsl.topology.schedule import FINAL_RATIO, SCHEDULES, update_ratio


@st.composite
def tensor_sizes(draw):
    rows, columns = draw(st.integers(1, 200)), draw(st.integers(1, 40))
    padded = rows > 1 and draw(st.booleans())
    return TensorSize("w", rows, columns, rows * columns - columns * padded)


@given(st.lists(tensor_sizes(), min_size=1, max_size=6), st.floats(0.001, 1), st.sampled_from(list(BUDGETS)))
def test_budget_is_exact_and_within_each_tensor(sizes, density, budget):
    if density == 1:
        assert allocate(sizes, density, budget) == [s.numel for s in sizes]
        return
    total = min(round(density * sum(s.numel for s in sizes)), sum(s.capacity for s in sizes))
    if total < len(sizes):
        with pytest.raises(DSLError, match=r"^density=\S+ leaves w no weight") as error:
            allocate(sizes, density, budget)
        smallest = float(re.search(r"density >= (\S+)", str(error.value)).group(1))
        if sum(s.capacity for s in sizes) >= len(sizes):
            allocate(sizes, min(smallest, 1.0), budget)
        return
    counts = allocate(sizes, density, budget)
    assert sum(counts) == total
    assert all(1 <= count <= size.capacity for count, size in zip(counts, sizes))


def test_uniform_gives_one_density_and_erk_more_to_small_tensors():
    sizes = [TensorSize("big", 1000, 50, 50_000), TensorSize("small", 10, 50, 500)]
    assert allocate(sizes, 0.1, "uniform") == [5000, 50]
    assert allocate(sizes, 0.1, "erk") == [4777, 273], "as 1050 to 60"
    assert allocate(sizes, 0.2, "erk") == [9600, 500], "the small one is full"


@given(st.integers(1, 300), st.data())
def test_sample_is_distinct_ascending_and_in_range(n, data):
    k = data.draw(st.integers(0, n))
    drawn = sample(k, n, torch.Generator().manual_seed(0)).tolist()
    assert drawn == sorted(set(drawn)) and len(drawn) == k and all(0 <= p < n for p in drawn)


def test_sample_is_uniform():
    generator = torch.Generator().manual_seed(0)
    for k in (3, 8):
        counts = torch.zeros(10)
        for _ in range(4000):
            counts[sample(k, 10, generator)] += 1
        assert (counts / 4000 - k / 10).abs().max() < 0.03


@given(st.sampled_from(list(INITIALISERS)), st.integers(2, 9), st.integers(1, 9), st.booleans(), st.data())
def test_initialisers_avoid_the_padding_row_and_are_exact(name, rows, columns, keep_rows, data):
    padding = data.draw(st.one_of(st.none(), st.integers(0, rows - 1)))
    capacity = rows * columns - (0 if padding is None else columns)
    nnz = data.draw(st.integers(1, capacity))
    dense = torch.randn(rows, columns)
    positions = INITIALISERS[name](dense, nnz, torch.Generator().manual_seed(0), padding, keep_rows)
    assert positions.tolist() == sorted(set(positions.tolist())) and len(positions) == nnz
    assert padding is None or not (positions // columns == padding).any()
    kept = rows - (padding is not None)
    if keep_rows and nnz >= kept:
        assert len(set((positions // columns).tolist())) == kept


def test_the_other_weights_are_uniform_when_rows_are_kept():
    counts, generator = torch.zeros(12), torch.Generator().manual_seed(0)
    for _ in range(4000):
        counts[INITIALISERS["uniform"](torch.zeros(3, 4), 6, generator, None, True)] += 1
    assert (counts / 4000 - 0.5).abs().max() < 0.03


def test_magnitude_keeps_the_largest():
    dense = torch.tensor([[9.0, -9.0], [-0.1, 3.0], [2.0, -4.0]])
    positions = INITIALISERS["magnitude"](dense, 2, torch.Generator(), 0)
    assert positions.tolist() == [3, 5] and dense[0, 0] == 9


@given(st.sampled_from(list(SCHEDULES)), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_schedules_fall_from_the_first_ratio_to_the_last(name, first, a, b):
    early, late = sorted((a, b))
    assert update_ratio(name, first, 0.0) == pytest.approx(first)
    assert update_ratio(name, first, early) >= update_ratio(name, first, late) - 1e-12
    end = first if name == "constant" else min(first, FINAL_RATIO)
    assert update_ratio(name, first, 1.0) == pytest.approx(end)


def test_cosine_is_the_published_one():
    assert update_ratio("cosine", 0.5, 0.5) == pytest.approx((0.5 + 0.005) / 2)


values = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30)


@given(st.sampled_from(list(PRUNE)), values, st.data())
def test_every_prune_criterion_selects_exactly_n_ties_included(name, weights, data):
    n = data.draw(st.integers(0, len(weights)))
    alive = AliveWeights(torch.tensor(weights), torch.ones(len(weights)), threshold=1.0)
    pruned = least_important(PRUNE[name](alive), n)
    below = sum(abs(w) < 1.0 for w in weights)
    assert len(set(pruned.tolist())) == len(pruned) == (min(n, below) if name == "threshold" else n)


def test_prune_criteria_choose_as_defined():
    alive = AliveWeights(
        torch.tensor([-3.0, -2.0, 0.1, 0.2, 0.3, 4.0]), torch.tensor([0.0, 1.0, 9.0, 1.0, 1.0, 0.01]), 0.25
    )
    chosen = {name: least_important(f(alive), 3).tolist() for name, f in PRUNE.items()}
    assert chosen == {"magnitude": [2, 3, 4], "set": [1, 2, 3], "taylor": [0, 3, 5], "threshold": [2, 3]}


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])), max_size=20))
def test_best_of_each_row_is_one_slot_per_row(entries):
    entries.sort(key=lambda entry: entry[0])
    rows, importance = [row for row, _ in entries], [value for _, value in entries]
    slots = best_of_each_row(torch.tensor(importance), torch.tensor(rows, dtype=torch.long)).tolist()
    expected = {row: max(v for r, v in entries if r == row) for row in rows}
    assert [rows[slot] for slot in slots] == sorted(expected)
    assert all(importance[slot] == expected[rows[slot]] for slot in slots)


def test_protected_slots_are_kept():
    assert least_important(torch.tensor([1.0, 2.0, 3.0]), 2, torch.tensor([0])).tolist() == [1, 2]


@given(st.integers(1, 100), st.data())
def test_explored_counts_each_position_once(numel, data):
    explored, seen = Explored(numel, torch.device("cpu")), set()
    for _ in range(3):
        positions = data.draw(st.lists(st.integers(0, numel - 1), unique=True))
        explored.mark(torch.tensor(positions, dtype=torch.long))
        seen |= set(positions)
    assert explored.count == len(seen)
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, numel))
    assert explored.marked_in(start, stop).tolist() == [p in seen for p in range(start, stop)]
    copy = Explored(numel, torch.device("cpu"))
    copy.load(explored.bits)
    assert copy.count == len(seen)
