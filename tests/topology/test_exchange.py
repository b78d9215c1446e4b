"""What an update prunes and grows, against a sort of everything; the memory of what it goes by."""

import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.sparse.weight import SparseWeight
from recbole_dsl.topology.blocks import Part, Rules
from recbole_dsl.topology.exchange import exchange
from recbole_dsl.topology.explored import Explored
from recbole_dsl.topology.gradients import GradientBuffer
from recbole_dsl.topology.grow_criteria import GROW
from recbole_dsl.topology.grow_selection import Growing
from recbole_dsl.topology.prune_criteria import PRUNE
from recbole_dsl.topology.prune_selection import Pruning
from recbole_dsl.topology.selection import Choice
from tests.toy import alive_positions, blocks_of

few_values = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])


def rules(prune="magnitude", grow="random", keep_rows=False, threshold=1.0, seed=0):
    return Rules(PRUNE[prune], GROW[grow], threshold, keep_rows, torch.Generator().manual_seed(seed))


def part(dense, positions, gradients=None, padding=None):
    weight = SparseWeight.of(dense, torch.tensor(positions), padding)
    explored = Explored(weight, exact=True)
    buffer = None
    if gradients is not None:
        buffer = GradientBuffer(*dense.shape, dense, 1.0)
        buffer.add(None, gradients)
    return Part(weight, explored, buffer)


@given(st.data(), st.sampled_from(list(PRUNE)), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_every_criterion_prunes_the_lowest_and_exactly_so_many(data, name, rows, columns, sparse_gradient):
    n = rows * columns
    alive = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    dense = torch.tensor(data.draw(st.lists(few_values, min_size=n, max_size=n))).view(rows, columns)
    gradient = torch.tensor(data.draw(st.lists(few_values, min_size=len(alive), max_size=len(alive))))
    one = part(dense, alive)
    one.weight.values.grad = gradient.to_sparse() if sparse_gradient else gradient
    ratio = data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    values = dense.view(-1)[alive]
    wanted = min(round(ratio * len(alive)), n - len(alive))
    importance = {"taylor": (values * gradient).abs()}.get(name, values.abs())
    if name == "threshold":
        wanted = min(wanted, int((importance < 1).sum()))
    with blocks_of(16):
        exchanged = exchange([one], ratio, rules(name))
    pruned = torch.tensor([p not in alive_positions(one.weight) for p in alive])
    assert exchanged == wanted == pruned.sum() and one.weight.nnz == len(alive)
    for half in (values < 0, values >= 0) if name == "set" else (torch.ones_like(pruned),):
        gone, kept = importance[half & pruned], importance[half & ~pruned]
        assert not len(gone) or not len(kept) or gone.max() <= kept.min()
        if name == "set":
            assert abs(len(gone) * len(alive) - wanted * int(half.sum())) <= len(alive), "each half its share"


@given(st.data(), st.integers(2, 40), st.integers(1, 4), st.booleans())
def test_the_highest_gradients_grow_and_others_at_random_when_they_are_too_few(data, rows, columns, padded):
    n, padding = rows * columns, 0 if padded else None
    alive = sorted(data.draw(st.sets(st.integers(columns if padded else 0, n - 1))))
    if not alive:
        return
    gradients = torch.tensor(data.draw(st.lists(few_values, min_size=n, max_size=n))).view(rows, columns)
    one = part(torch.ones(rows, columns), alive, gradients, padding)
    with blocks_of(16):
        exchanged = exchange([one], 0.5, rules(grow="gradient"))
    grown = alive_positions(one.weight) - set(alive)
    others = set(range(columns if padded else 0, n)) - set(alive) - grown
    score = gradients.view(-1).abs()
    assert len(grown) == exchanged == min(round(0.5 * len(alive)), len(grown | others))
    assert not grown or not others or score[list(grown)].min() >= score[list(others)].max()
    assert one.explored.count == len(alive) + len(grown)


def test_what_was_never_alive_grows_first():
    one = part(torch.ones(8, 4), list(range(16)))
    one.explored.mark(torch.arange(16, 28))
    exchange([one], 0.25, rules(grow="random_unfired"))
    assert alive_positions(one.weight) - set(range(16)) == set(range(28, 32))


def test_several_tensors_share_one_budget_and_none_is_emptied():
    small, large = part(torch.full((2, 2), 0.1), [0, 3]), part(torch.ones(8, 4), list(range(10)))
    exchange([small, large], 1.0, rules())
    assert small.weight.nnz + large.weight.nnz == 12
    assert min(small.weight.nnz, large.weight.nnz) >= 1


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_buffer_keeps_to_its_cap_and_holds_whole_rows(share):
    rows, columns, generator = 2000, 16, torch.Generator().manual_seed(0)
    like = torch.zeros(0)
    buffer = GradientBuffer(rows, columns, like, share)
    sums = torch.zeros(rows, columns)
    for _ in range(30):
        ids = torch.randint(rows, (300,), generator=generator).unique()
        gradient = torch.randn(len(ids), columns, generator=generator)
        buffer.add(ids, gradient)
        sums[ids] += gradient
        buffer.decay(0.9)
        sums *= 0.9
        assert buffer.peak_bytes <= share * rows * columns * 4
    held, collected = buffer.held(0, rows)
    assert torch.allclose(collected, sums[held], atol=1e-5)
    assert len(held) == buffer.used > 0.6 * buffer.limit
    local, some = buffer.held(500, 1000)
    assert torch.equal(some, collected[(held >= 500) & (held < 1000)])
    assert torch.equal(local + 500, held[(held >= 500) & (held < 1000)])


def test_which_rows_the_buffer_holds_changes_from_window_to_window():
    seen = torch.zeros(1000)
    for window in range(100):
        buffer = GradientBuffer(1000, 16, torch.zeros(0), 0.3, window)
        buffer.add(None, torch.ones(1000, 16))
        seen[buffer.held(0, 1000)[0]] += 1
    assert (seen > 0).all() and seen.max() < 40


@pytest.mark.parametrize("prune", list(PRUNE))
def test_what_an_update_goes_by_is_freed_at_once(prune):
    one = part(torch.randn(40, 8), range(0, 320, 4), torch.randn(40, 8))
    one.weight.values.grad = torch.randn(80)
    gc.collect()
    gc.disable()
    try:
        exchange([one], 0.5, rules(prune, grow="gradient"))
        assert not [found for found in gc.get_objects() if type(found) in (Growing, Pruning, Choice)]
    finally:
        gc.enable()
