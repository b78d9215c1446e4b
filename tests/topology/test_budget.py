"""Budgets of tensors."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.topology.budget import BUDGETS, TensorSize, allocate, allocate_crossed


@st.composite
def tensor_sizes(draw):
    rows, columns = draw(st.integers(1, 200)), draw(st.integers(1, 40))
    padded = rows > 1 and draw(st.booleans())
    return TensorSize("w", rows, columns, rows * columns - columns * padded, draw(st.booleans()))


@given(
    st.lists(tensor_sizes(), min_size=1, max_size=6),
    st.floats(0.001, 1),
    st.sampled_from(list(BUDGETS)),
    st.none() | st.floats(0.01, 1),
)
def test_budget_is_exact_and_within_each_tensor(sizes, density, budget, ratio):
    if density == 1:
        assert allocate(sizes, density, budget, ratio) == [s.numel for s in sizes]
        return
    total = min(round(density * sum(s.numel for s in sizes)), sum(s.capacity for s in sizes))
    if total < len(sizes):
        with pytest.raises(DSLError, match=r"^density=\S+ leaves w no weight") as error:
            allocate(sizes, density, budget, ratio)
        smallest = float(re.search(r"density >= (\S+)", str(error.value)).group(1))
        if sum(s.capacity for s in sizes) >= len(sizes):
            allocate(sizes, min(smallest, 1.0), budget, ratio)
        return
    counts = allocate(sizes, density, budget, ratio)
    assert sum(counts) == total
    assert all(1 <= count <= size.capacity for count, size in zip(counts, sizes))


def test_uniform_gives_one_density_and_erk_more_to_small_tensors():
    sizes = [TensorSize("big", 1000, 50, 50_000), TensorSize("small", 10, 50, 500)]
    assert allocate(sizes, 0.1, "uniform") == [5000, 50]
    assert allocate(sizes, 0.1, "erk") == [4777, 273], "as 1050 to 60"
    assert allocate(sizes, 0.2, "erk") == [9600, 500], "the small one is full"


def test_tables_of_items_are_less_dense_by_a_ratio():
    users, items = TensorSize("users", 1000, 50, 50_000), TensorSize("items", 3000, 50, 150_000, is_of_items=True)
    assert allocate([users, items], 0.1, "uniform", 0.5) == [8000, 12_000], "0.16 and 0.08"
    assert allocate([users, items], 0.1, "uniform", 1) == [5000, 15_000]
    assert allocate([users, items], 0.9, "uniform", 0.5) == [50_000, 130_000], "users have all of theirs"
    by_default = [allocate([users, items], density, "uniform") for density in (0.01, 0.1, 0.5)]
    ratios = [of_items / 3 / of_users for of_users, of_items in by_default]
    assert ratios == pytest.approx([0.01**0.3, 0.1**0.3, 0.5**0.3], rel=0.01)


@given(st.lists(tensor_sizes(), min_size=1, max_size=3), st.lists(tensor_sizes(), max_size=3), st.floats(0, 1))
def test_a_crossed_budget_is_exact_and_within_each_tensor(tables, layers, share):
    sizes = [*tables, *layers]
    total = sum(round(1 + share * (size.capacity - 1)) for size in sizes)
    counts = allocate_crossed(tables, layers, total)
    assert sum(counts) == total
    assert all(1 <= count <= size.capacity for count, size in zip(counts, sizes))


def test_layers_that_cross_tables_have_the_square_of_their_density():
    tables = [TensorSize("users", 1000, 50, 50_000), TensorSize("items", 3000, 50, 150_000)]
    layer = TensorSize("cross", 100, 100, 10_000)
    assert allocate_crossed(tables, [layer, layer], 20_200) == [5000, 15_000, 100, 100], "0.1 and 0.01"
    assert allocate_crossed(tables, [layer], 210_000) == [50_000, 150_000, 10_000]
    assert allocate_crossed(tables, [], 20_000) == [5000, 15_000]
