"""The small functions: budgets, initialisers, schedules, selection, the record of what was alive."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.topology.budget import BUDGETS, TensorSize, allocate
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.initialise import INITIALISERS, Start
from recbole_dsl.topology.prune import best_of_each_row
from recbole_dsl.topology.schedule import FINAL_RATIO, SCHEDULES, update_ratio
from recbole_dsl.topology.select import choose, draw, find_cut, share_out, sortable
from tests.toy import blocks_of


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


def start(dense, nnz, padding=None, keep_rows=False):
    return Start(*dense.shape, nnz, padding, keep_rows, lambda: dense)


def initial_mask(name, start, seed=0):
    return torch.cat(list(INITIALISERS[name](start, torch.Generator().manual_seed(seed))))


@given(st.sampled_from(list(INITIALISERS)), st.integers(2, 90), st.integers(1, 9), st.booleans(), st.data())
def test_initialisers_avoid_the_padding_row_and_are_exact(name, rows, columns, keep_rows, data):
    padding = data.draw(st.one_of(st.none(), st.integers(0, rows - 1)))
    capacity = rows * columns - (0 if padding is None else columns)
    nnz = data.draw(st.integers(1, capacity))
    with blocks_of(16):
        mask = initial_mask(name, start(torch.randn(rows, columns), nnz, padding, keep_rows))
    assert mask.shape == (rows, columns) and mask.sum() == nnz
    assert padding is None or not mask[padding].any()
    kept = rows - (padding is not None)
    if keep_rows and nnz >= kept:
        assert mask.any(1).sum() == kept


@pytest.mark.parametrize("keep_rows", [False, True])
def test_the_initial_weights_are_uniform(keep_rows):
    counts, generator = torch.zeros(24, 2), torch.Generator().manual_seed(0)
    with blocks_of(16):
        for _ in range(4000):
            blocks = INITIALISERS["uniform"](start(torch.zeros(24, 2), 30, None, keep_rows), generator)
            counts += torch.cat(list(blocks))
    assert (counts / 4000 - 30 / 48).abs().max() < 0.04


def test_magnitude_keeps_the_largest():
    dense = torch.tensor([[9.0, -9.0], [-0.1, 3.0], [2.0, -4.0]])
    mask = initial_mask("magnitude", start(dense, 2, padding=0))
    assert mask.view(-1).nonzero().view(-1).tolist() == [3, 5] and dense[0, 0] == 9


scores = st.lists(st.sampled_from([-2.0, -1.0, -1e-40, 0.0, 1e-30, 0.5, 1.0, 3e38, float("inf")]), min_size=1)


@given(scores, st.sampled_from([torch.float16, torch.float32, torch.float64]), st.data())
def test_the_cut_is_where_sorting_puts_it(values, dtype, data):
    values = torch.tensor(values, dtype=dtype)
    keys, n = sortable(values), data.draw(st.integers(1, len(values)))
    assert find_cut(lambda: keys.split(7), n) == keys.sort().values[n - 1]
    assert torch.equal(values[keys.argsort(stable=True)], values.sort().values)
    assert torch.equal(values[(~keys).argsort(stable=True)], values.sort(descending=True).values)


@given(st.integers(0, 3), st.integers(0, 900), st.sampled_from(["alike", "equals", "in order", "an odd sample"]))
def test_the_lowest_keys_are_chosen_and_equals_shared_out(seed, n, kind):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(-(2**31), 2**31 - 1, (800,), generator=generator, dtype=torch.int32)
    if kind == "equals":
        keys %= 3
    elif kind == "in order":
        keys = keys.sort().values
    elif kind == "an odd sample":
        # what is sampled is all high
        keys[::61] = 2**31 - 1
    blocks = [*keys.split(90), None]
    choice = choose(lambda i: blocks[i], len(blocks), n, generator)
    chosen = [choice.of_block(i, some, generator) for i, some in enumerate(blocks) if some is not None]
    assert choice.counts == [*(int(mask.sum()) for mask in chosen), 0]
    assert choice.n == min(n, 800)
    mask = torch.cat(chosen)
    assert torch.equal(keys[mask].sort().values, keys.sort().values[:n])


@given(st.integers(0, 500), st.lists(st.integers(0, 60), max_size=9), st.integers(0, 9))
def test_a_total_is_shared_out_whole_and_in_proportion(total, sizes, seed):
    total = min(total, sum(sizes))
    shares = share_out(total, sizes, torch.Generator().manual_seed(seed))
    assert sum(shares) == total
    for share, size in zip(shares, sizes):
        assert abs(share * sum(sizes) - total * size) <= sum(sizes) and share <= size


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.data())
def test_a_draw_is_exact_and_from_the_pool(pool, data):
    pool = torch.tensor(pool)
    k = data.draw(st.integers(0, int(pool.sum())))
    chosen = draw(pool, k, torch.Generator().manual_seed(data.draw(st.integers(0, 5))))
    assert chosen.sum() == k and not (chosen & ~pool).any()


@pytest.mark.parametrize("pool", [[3, 4], [0, 1, 3, 4, 5, 6, 8, 9]], ids=["a small pool", "a large pool"])
def test_draws_are_uniform(pool):
    mask, generator = torch.zeros(10, dtype=torch.bool), torch.Generator().manual_seed(0)
    mask[pool] = True
    for k in range(1, len(pool)):
        counts = torch.zeros(10)
        for _ in range(3000):
            counts += draw(mask, k, generator)
        assert (counts[pool] / 3000 - k / len(pool)).abs().max() < 0.04


@given(st.sampled_from(list(SCHEDULES)), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_schedules_fall_from_the_first_ratio_to_the_last(name, first, a, b):
    early, late = sorted((a, b))
    assert update_ratio(name, first, 0.0) == pytest.approx(first)
    assert update_ratio(name, first, early) >= update_ratio(name, first, late) - 1e-12
    end = first if name == "constant" else min(first, FINAL_RATIO)
    assert update_ratio(name, first, 1.0) == pytest.approx(end)


def test_cosine_is_the_published_one():
    assert update_ratio("cosine", 0.5, 0.5) == pytest.approx((0.5 + 0.005) / 2)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])), max_size=20))
def test_best_of_each_row_is_one_slot_per_row(entries):
    entries.sort(key=lambda entry: entry[0])
    rows, importance = [row for row, _ in entries], [value for _, value in entries]
    slots = best_of_each_row(torch.tensor(importance), torch.tensor(rows, dtype=torch.long)).tolist()
    expected = {row: max(v for r, v in entries if r == row) for row in rows}
    assert [rows[slot] for slot in slots] == sorted(expected)
    assert all(importance[slot] == expected[rows[slot]] for slot in slots)


@given(st.integers(1, 100), st.data())
def test_explored_counts_each_position_once(numel, data):
    explored, seen = Explored(numel, torch.device("cpu")), set()
    for _ in range(3):
        begin = 8 * data.draw(st.integers(0, (numel - 1) // 8))
        alive = data.draw(st.lists(st.booleans(), max_size=numel - begin))
        explored.mark(begin, torch.tensor(alive, dtype=torch.bool))
        seen |= {begin + i for i, one in enumerate(alive) if one}
    assert explored.count == len(seen)
    start = data.draw(st.integers(0, numel))
    stop = data.draw(st.integers(start, numel))
    assert explored.marked_in(start, stop).tolist() == [p in seen for p in range(start, stop)]
    copy = Explored(numel, torch.device("cpu"))
    copy.load(explored.bits)
    assert copy.count == len(seen)
