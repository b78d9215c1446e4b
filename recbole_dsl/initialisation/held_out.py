"""Choosing the factors that rank interactions best which were held out of the factorisation."""

import numpy as np
from scipy.sparse import csr_matrix

from recbole_dsl.initialisation.codes import largest
from recbole_dsl.initialisation.factors import Factors, most_active
from recbole_dsl.initialisation.recode import damped, most_active_of, recode
from recbole_dsl.initialisation.singular import QUICK

# of `Factors`: the larger is better where histories are short, since popular items dominate those
_DAMPINGS = 0.25, 0.4
# of `Factors.spread`; 0 keeps the factors that stand out, best where the structure is global
_STEPS = 0, 1, 3, 8
_LEFT_OUT = 0.1
# half of the users have so many interactions or more: on all data of this kind the first of each was chosen
_LONG = 32
# users with held-out interactions: at most, at least, and their share of those with two interactions or more
_MOST_USERS = 4096
# scores of them with all items
_MOST_SCORES = 40_000_000
_FEWEST_USERS = 100
_SHARE = 0.5
_TOP = 10
_BLOCK = 64


def best_factors(interactions: csr_matrix, columns: int, densities: tuple[float, float], seed: int = 0) -> Factors:
    """`Factors` of ``interactions`` with the damping and the number of steps whose sparse codes rank best.

    A tenth of the interactions of some users, one each at least, is held out. The codes that a table would start
    from are made of the others, and compared by the NDCG@10 of their products on the held-out ones: first each
    damping without steps, then more and more steps with the better damping, for as long as they rank better.

    The users are half of those that are factorised and have two interactions or more, so that the codes are much
    like those of all the data; they are 4,096 at most, with 40 million scores of all items. With fewer than 100 of
    them, or where half of all users have 32 interactions or more, nothing is compared: the factors that stand out
    are taken, with the smaller damping.

    Args:
        interactions: (users, items); whatever is not zero counts as 1.
        columns: number of factors.
        densities: those of the weights of users, and of items, that will start from them.
        seed: of the held-out interactions, and of `Factors`.
    """
    some = most_active(interactions)
    users = _some_users(some, seed)
    if len(users) < _FEWEST_USERS or histories_are_long(interactions):
        return Factors(interactions, columns, seed, _DAMPINGS[0])
    kept, left_out = _leave_out(some, users, seed)

    def reached(factors: Factors) -> float:
        return _ndcg(factors, densities, kept, left_out, users)

    best, value, steps = None, -1.0, 0
    for damping in _DAMPINGS:
        trial = Factors(kept, columns, seed, damping, QUICK)
        if (found := reached(trial)) > value:
            best, value = trial, found
    for more in _STEPS[1:]:
        found = reached(best.spread(more, densities))
        if found <= value:
            break
        value, steps = found, more
    damping = best.damping
    # before the next one takes memory
    del best, trial
    return Factors(interactions, columns, seed, damping).spread(steps, densities)


def histories_are_long(interactions: csr_matrix) -> bool:
    """Whether half of the users with ``interactions`` (users, items) have 32 of them or more."""
    lengths = np.diff(interactions.indptr)
    return bool(np.median(lengths[lengths > 0]) >= _LONG)


def best_damping(
    users: csr_matrix, items: csr_matrix, interactions: csr_matrix, budgets: tuple[int, int], seed: int = 0
) -> float:
    """The damping of ``interactions`` with which `recode` ranks best what is held out, as for `best_factors`.

    Args:
        users, items, budgets: as of `recode`.
        interactions: (users, items); whatever is not zero counts as 1.
        seed: of the held-out interactions.
    """
    of_users, of_items = most_active_of(interactions), most_active_of(interactions.T.tocsr())
    some = interactions[of_users][:, of_items]
    held_out = _some_users(some, seed)
    if len(held_out) < _FEWEST_USERS:
        return _DAMPINGS[0]
    kept, left_out = _leave_out(some, held_out, seed)
    sides = users[of_users], items[of_items]
    shares = [
        round(side.shape[0] / all_rows.shape[0] * budget)
        for side, all_rows, budget in zip(sides, (users, items), budgets)
    ]

    def reached(damping: float) -> float:
        codes = recode(*sides, damped(kept, damping), (shares[0], shares[1]))
        return _ranked(codes[0][held_out].toarray(), codes[1].toarray(), kept, left_out, held_out)

    return max(_DAMPINGS, key=reached)


def _some_users(interactions: csr_matrix, seed: int) -> np.ndarray:
    """Those of whom some interactions are held out, ascending."""
    users = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(interactions.indptr) > 1))
    most = min(_MOST_USERS, max(_FEWEST_USERS, _MOST_SCORES // interactions.shape[1]))
    return np.sort(users[: min(most, int(_SHARE * len(users)))])


def _leave_out(interactions: csr_matrix, users: np.ndarray, seed: int) -> tuple[csr_matrix, csr_matrix]:
    """The ``interactions`` that are kept, and those of ``users`` that are held out, both of the same shape."""
    counts = np.diff(interactions.indptr)
    owners = np.repeat(np.arange(len(counts)), counts)
    # a random order within each user
    order = np.lexsort((np.random.default_rng(seed).random(len(owners)), owners))
    place = np.arange(len(owners)) - interactions.indptr[owners]
    n_left_out = np.zeros(len(counts))
    n_left_out[users] = np.maximum(1, np.round(_LEFT_OUT * counts[users]))
    is_left_out = np.zeros(len(owners), dtype=bool)
    is_left_out[order] = place < n_left_out[owners]
    return tuple(
        csr_matrix((interactions.data[some], (owners[some], interactions.indices[some])), interactions.shape)
        for some in (~is_left_out, is_left_out)
    )


def _ndcg(
    factors: Factors, densities: tuple[float, float], kept: csr_matrix, left_out: csr_matrix, users: np.ndarray
) -> float:
    """The mean NDCG@10 of ``users``, without the items in ``kept``."""
    sides = factors.users(0, kept.shape[0]).numpy(), factors.items(0, kept.shape[1]).numpy()
    of_users = largest(sides[0], densities[0], by_share=True)[users]
    return _ranked(of_users, largest(sides[1], densities[1]), kept, left_out, users)


def _ranked(
    of_users: np.ndarray, of_items: np.ndarray, kept: csr_matrix, left_out: csr_matrix, users: np.ndarray
) -> float:
    """`_ndcg` by codes of ``users`` and of all items; of equal scores, those of held-out items come last."""
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    ideal = np.cumsum(discounts)
    total = 0.0
    for start in range(0, len(users), _BLOCK):
        some = users[start : start + _BLOCK]
        scores = of_users[start : start + _BLOCK] @ of_items.T
        scores[kept[some].nonzero()] = -np.inf
        wanted = left_out[some]
        rows, items = wanted.nonzero()
        # row by row, which stays in the cache: a tenth of the time of a search for the best ten
        places = np.array([np.count_nonzero(scores[r] >= scores[r, i]) for r, i in zip(rows, items)]) - 1
        best = ideal[np.minimum(np.diff(wanted.indptr), _TOP) - 1]
        is_found = places < _TOP
        total += (discounts[places[is_found]] / best[rows[is_found]]).sum()
    return total / len(users)
