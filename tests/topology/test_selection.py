"""The n best of many scores, and draws at random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.topology.selection import Sample, choose, draw, find_cut, share_out, sortable

scores = st.lists(st.sampled_from([-2.0, -1.0, -1e-40, 0.0, 1e-30, 0.5, 1.0, 3e38, float("inf")]), min_size=1)


@given(scores, st.sampled_from([torch.float16, torch.float32, torch.float64]), st.data())
def test_the_cut_is_where_sorting_puts_it(values, dtype, data):
    values = torch.tensor(values, dtype=dtype)
    keys, n = sortable(values), data.draw(st.integers(1, len(values)))
    assert find_cut(lambda: keys.split(7), n) == keys.sort().values[n - 1]
    assert torch.equal(values[keys.argsort(stable=True)], values.sort().values)
    assert torch.equal(values[(~keys).argsort(stable=True)], values.sort(descending=True).values)


@given(
    st.integers(0, 3),
    st.integers(0, 900),
    st.sampled_from(["alike", "equals", "in order", "an odd sample"]),
    st.sampled_from([None, 1, 61]),
)
def test_the_lowest_keys_are_chosen_and_equals_shared_out(seed, n, kind, stride):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(-(2**31), 2**31 - 1, (800,), generator=generator, dtype=torch.int32)
    if kind == "equals":
        keys %= 3
    elif kind == "in order":
        keys = keys.sort().values
    elif kind == "an odd sample":
        # what is sampled is all high
        keys[::61] = 2**31 - 1
    blocks = [*keys.split(90), keys[:0]]

    def candidates(i, highest):
        places = torch.arange(len(blocks[i]))
        among = torch.ones_like(places, dtype=torch.bool) if highest is None else blocks[i] <= highest
        return blocks[i][among], places[among]

    sample = stride and Sample(keys[::stride], stride)
    choice = choose(candidates, len(blocks), n, generator, sample)
    chosen = [torch.zeros(len(some), dtype=torch.bool) for some in blocks]
    for i, mask in enumerate(chosen):
        places = choice.of_block(i, generator, candidates)
        if places is not None:
            assert (places.diff() > 0).all()
            mask[places] = True
    assert choice.counts == [int(mask.sum()) for mask in chosen]
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
