"""Which start is taken, by interactions that it was not made from."""

import numpy as np
import pytest
import scipy.sparse as sp

from recbole_dsl.initialisation import held_out
from recbole_dsl.initialisation.codes import largest
from recbole_dsl.initialisation.factors import Factors
from recbole_dsl.initialisation.held_out import best_damping, best_factors
from recbole_dsl.initialisation.recode import damped, recode

DENSITIES = 0.1, 0.1


def small_groups(users=1500, groups=120, size=6, each=6, seed=0):
    """Users of two of many small groups of items; three interactions in ten are with popular items instead."""
    draw = np.random.default_rng(seed)
    groups_of = draw.integers(groups, size=(users, 2))
    group = groups_of[np.arange(users)[:, None], draw.integers(2, size=(users, each))]
    items = group * size + draw.integers(size, size=group.shape)
    popular = (groups * size * draw.random(group.shape) ** 3).astype(int)
    items = np.where(draw.random(group.shape) < 0.3, popular, items)
    ones = np.ones(items.size, dtype=np.float32)
    return sp.csr_matrix((ones, (np.repeat(np.arange(users), each), items.ravel())), (users, groups * size))


def few_tastes(users=600, items=400, tastes=5, seed=0):
    """Users and items of a few dimensions, all of which every user has a taste in."""
    draw = np.random.default_rng(seed)
    liked = draw.standard_normal((users, tastes)) @ draw.standard_normal((tastes, items))
    liked += 2 - 1.5 * np.log(np.arange(items) + 2)
    return sp.csr_matrix((draw.random(liked.shape) < 1 / (1 + np.exp(-liked))).astype(np.float32))


def columns_in_use(factors, n_items):
    """The perplexity of the columns that items choose, as a share of all columns: 1 if all are used alike."""
    counts = (largest(factors.items(0, n_items).numpy(), DENSITIES[1]) != 0).sum(0)
    shares = counts[counts > 0] / counts.sum()
    return np.exp(-(shares * np.log(shares)).sum()) / len(counts)


def test_a_table_of_many_small_groups_uses_its_columns_evenly():
    matrix = small_groups()
    assert columns_in_use(Factors(matrix, 32), 720) < 0.5, "the factors that stand out are few"
    assert columns_in_use(best_factors(matrix, 32, DENSITIES), 720) > 0.9


def test_what_was_left_out_decides():
    """The start that is taken ranks what it was not made from better than the factors that stand out."""
    kept, left_out = held_out._leave_out(small_groups(each=9), np.arange(1500), seed=1)
    found = [
        held_out._ndcg(factors, DENSITIES, kept, left_out, np.arange(1500))
        for factors in (Factors(kept, 32), best_factors(kept, 32, DENSITIES))
    ]
    assert found[1] > 1.2 * found[0]


def test_long_histories_need_no_choice(monkeypatch):
    matrix = few_tastes()
    lengths = np.diff(matrix.indptr)
    monkeypatch.setattr(held_out, "_LONG", np.median(lengths))
    monkeypatch.setattr(held_out, "_leave_out", None)
    assert best_factors(matrix, 32, DENSITIES).items(0, 400).equal(Factors(matrix, 32).items(0, 400))


@pytest.mark.parametrize("matrix", [few_tastes(seed=1), small_groups(users=150)], ids=["global", "few"])
def test_factors_that_stand_out_are_kept_where_nothing_local_is_to_be_learned(matrix):
    n_items = matrix.shape[1]
    assert best_factors(matrix, 32, DENSITIES).items(0, n_items).equal(Factors(matrix, 32).items(0, n_items))


def test_popular_items_are_damped_more_where_histories_are_short():
    short, long = small_groups(each=5), few_tastes(seed=1)
    assert best_factors(short, 32, DENSITIES).damping > best_factors(long, 32, DENSITIES).damping


def test_one_interaction_in_ten_of_some_users_is_left_out():
    matrix = small_groups()
    users = np.arange(0, 1500, 2)
    kept, left_out = held_out._leave_out(matrix, users, seed=0)
    assert (kept + left_out != matrix).nnz == 0 and kept.multiply(left_out).nnz == 0
    counts = np.diff(left_out.indptr)
    assert (counts[users] == 1).all() and counts[1::2].sum() == 0


def test_the_ndcg_is_that_of_brute_force():
    matrix = small_groups(users=200, groups=20)
    kept, left_out = held_out._leave_out(matrix, np.arange(200), seed=0)
    factors = Factors(kept, 8)
    tables = largest(factors.users(0, 200).numpy(), 0.3, True), largest(factors.items(0, 120).numpy(), 0.3)
    total = 0
    for user in range(200):
        scores = np.where(kept[user].toarray()[0] > 0, -np.inf, tables[1] @ tables[0][user])
        hits = left_out[user].toarray()[0][np.argsort(-scores, kind="stable")[:10]] > 0
        total += (hits / np.log2(np.arange(2, 12))).sum() / sum(
            1 / np.log2(2 + place) for place in range(min(10, left_out[user].nnz))
        )
    assert held_out._ndcg(factors, (0.3, 0.3), kept, left_out, np.arange(200)) == pytest.approx(
        total / 200, abs=0.01
    )


def test_the_same_seed_gives_the_same_factors():
    matrix = small_groups()
    assert (
        best_factors(matrix, 32, DENSITIES, seed=4)
        .users(0, 1500)
        .equal(best_factors(matrix, 32, DENSITIES, seed=4).users(0, 1500))
    )


def test_the_damping_of_codes_is_the_one_that_ranks_best_what_is_held_out(monkeypatch):
    matrix = small_groups(users=300, groups=40)
    factors = Factors(matrix, 16)
    tables = [
        sp.csr_matrix(largest(side(0, n).numpy(), 0.3)) for side, n in ((factors.users, 300), (factors.items, 240))
    ]
    budgets = tables[0].nnz, tables[1].nnz
    # the last one is of no use
    monkeypatch.setattr(held_out, "_DAMPINGS", (0.25, 0.4, 3.0))
    users = held_out._some_users(matrix, seed=2)
    kept, left_out = held_out._leave_out(matrix, users, seed=2)
    values = {}
    for damping in held_out._DAMPINGS:
        codes = [code.toarray() for code in recode(*tables, damped(kept, damping), budgets)]
        values[damping] = held_out._ranked(codes[0][users], codes[1], kept, left_out, users)
    assert best_damping(*tables, matrix, budgets, seed=2) == max(values, key=values.get) != 3.0
    # of few users nothing can be told
    assert best_damping(tables[0][:20], tables[1], matrix[:20], budgets) == 0.25
