"""Histories in few bits are those that went in, whoever is asked for; bits that are no histories are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.serving.user_histories import UserHistories


def read(arrays, n_users, n_items):
    return UserHistories.read(Artifact("a.rdsl", {"n_users": n_users, "n_items": n_items}, arrays))


@st.composite
def histories(draw):
    """How many items there are, and what each user was trained on and has besides."""
    n_items = draw(st.sampled_from([1, 2, 7, 64, 300, 100_000]))
    items = st.lists(st.integers(0, n_items - 1), max_size=40)
    users = draw(st.lists(st.tuples(items, items), min_size=1, max_size=9))
    return n_items, [trained for trained, _ in users], [trained + others for trained, others in users]


@given(histories(), st.sampled_from(["all", "trained"]), st.randoms(use_true_random=False))
def test_what_went_in_comes_out_for_any_users(made, level, random):
    n_items, trained, all_items = made
    stored = UserHistories.of(CSR.of_lists(trained), CSR.of_lists(all_items), n_items, level)
    again = read(stored.arrays(), len(trained), n_items)
    wanted = {"trained": trained, "all": all_items}
    for asked in (
        [random.randrange(len(trained))],
        random.choices(range(len(trained)), k=5),
        range(len(trained)),
        [],
    ):
        for known in {"trained", level}:
            found = again.lists(np.array(asked, np.int64), known)
            lists = [found.columns[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:])]
            assert lists == [sorted({*wanted[known][user]}) for user in asked]
    counts = np.bincount([item for of_user in trained for item in {*of_user}], minlength=n_items)
    assert again.popularity.tolist() == counts.tolist()


def test_an_item_takes_two_bits_more_than_the_gap_before_it():
    random = np.random.default_rng(0)
    lists = CSR.of_lists([random.choice(50_000, 10, replace=False) for _ in range(1000)])
    for level, flag in (("trained", 0), ("all", 1)):
        arrays = UserHistories.of(lists, lists, 50_000, level).arrays()
        n_bytes = sum(array.nbytes for array in arrays.values())
        # a byte for each user's count
        assert n_bytes <= 1000 + 10_000 * (2 + np.log2(50_000 / 10) + flag) / 8 + 32


N_ITEMS = 20
LISTS = CSR.of_lists([[1, 19], [], [0, 3, 18]])
STORED = UserHistories.of(LISTS, LISTS, N_ITEMS, "trained").arrays()


@pytest.mark.parametrize(
    "name, bytes_, problem",
    [
        ("seen.counts", [2, 0, 21], "seen.counts must be at most 20"),
        ("seen.counts", [2, 1, 3], r"seen.high is \(16,\), must be|as many ones"),
        ("seen.counts", [3, 0, 2], "as many ones"),
        ("seen.counts", [255, 255, 255], "seen.counts must be at most 20"),
        ("seen.high", [0] * 16, "as many ones"),
        ("seen.high", [255] * 16, "as many ones"),
        ("seen.low", [255] * 16, "must be of ids within 0..19"),
        ("seen.low", [0] * 15, "seen.low is"),
        ("seen.items", [0] * 5, "must have popularity, or seen.counts"),
    ],
)
def test_bits_that_are_no_histories_are_refused(name, bytes_, problem):
    with pytest.raises(DSLError, match=problem):
        read({**STORED, name: np.array(bytes_, np.uint8)}, 3, N_ITEMS)


@given(st.binary(min_size=16, max_size=16), st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_whatever_the_bits_are_the_items_are_some_that_there_are(low, counts):
    arrays = {**STORED, "seen.low": np.frombuffer(low, np.uint8), "seen.counts": np.array(counts, np.uint8)}
    try:
        found = read(arrays, 3, N_ITEMS).lists(np.arange(3), "trained")
    except DSLError:
        return
    assert found.columns.min(initial=0) >= 0 and found.columns.max(initial=0) < N_ITEMS
    assert found.n_rows == 3


def first_version(**changes):
    """Histories as version 1 stored them: of each user first those trained on, then the others."""
    arrays = {"items": [7, 2, 5, 5, 19], "trained": [1, 0, 2], "counts": [2, 0, 3], **changes}
    return {f"seen.{name}": np.array(numbers, np.uint8) for name, numbers in arrays.items() if numbers is not None}


def test_histories_of_the_first_version_are_read():
    histories = read(first_version(), 3, N_ITEMS)
    assert histories.lists(np.array([2, 0]), "all").columns.tolist() == [5, 19, 2, 7]
    assert histories.lists(np.arange(3), "trained").columns.tolist() == [7, 5]
    histories = read(first_version(counts=None, trained=[2, 0, 3]), 3, N_ITEMS)
    assert histories.level == "trained" and histories.popularity.sum() == 4


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"items": [7, 2, 5, 5, 20]}, "within 0..19"),
        ({"trained": [3, 0, 2]}, "at most seen.counts"),
        ({"items": [7, 2, 5, 5]}, r"seen.items is \(4,\), must be \(5\)"),
        ({"counts": None}, r"seen.items is \(5,\), must be \(3\)"),
        ({"trained": None}, "must have popularity, or seen.counts"),
    ],
)
def test_histories_of_the_first_version_that_make_no_sense_are_refused(changes, problem):
    with pytest.raises(DSLError, match=problem):
        read(first_version(**changes), 3, N_ITEMS)
