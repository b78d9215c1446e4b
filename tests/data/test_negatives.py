from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.sampler import RepeatableSampler, Sampler

from recbole_dsl.data.negatives import sample_by_users, used_items
from tests.data.stock import require_equal, stock


@given(st.lists(st.sets(st.integers(0, 30)), min_size=1), st.data())
def test_ids_are_used_where_they_are_in_the_set_of_their_key(sets, data):
    keys, values = np.array(
        data.draw(st.lists(st.tuples(st.integers(0, len(sets) - 1), st.integers(-1, 31)), min_size=1))
    ).T
    expected = [value in sets[key] for key, value in zip(keys, values)]
    assert used_items(np.array(sets)).have(keys, values).tolist() == expected


def sampler(kind: type, items: list[int], alpha: float) -> Sampler:
    columns = {"user": torch.arange(len(items)) % 3, "item": torch.tensor(items)}
    data = SimpleNamespace(uid_field="user", iid_field="item", user_num=3, item_num=60, inter_feat=columns)
    return kind(["train"], [data], "popularity", alpha).set_phase("train")


@given(st.lists(st.integers(1, 20), min_size=1, max_size=50), st.sampled_from([0, 0.3, 1, 1.0, 2.5]))
def test_the_table_of_popularity_is_that_of_recbole(items, alpha):
    with stock():
        theirs = sampler(Sampler, items, alpha)
    ours = sampler(Sampler, items, alpha)
    assert list(ours.prob.items()) == list(theirs.prob.items())
    assert list(ours.alias.items()) == list(theirs.alias.items())


def test_a_sampler_of_the_users_own_keeps_its_candidates_and_what_it_does_to_its_sets():
    class Own(Sampler):
        def _get_candidates_list(self):
            return [1, 1, 2, 9, 9, 9]

        def sample_by_key_ids(self, key_ids, num):
            self.used_ids[0].add(9)
            return super().sample_by_key_ids(key_ids, num)

    def drawn() -> torch.Tensor:
        np.random.seed(0)
        made = sampler(Own, [1, 2, 3], 1.0)
        made.sample_by_key_ids([0, 1], 2)
        return made.sample_by_user_ids([0, 1, 2, 0], [1, 2, 3, 1], 20)

    with stock():
        theirs = drawn()
    require_equal(drawn(), theirs)


@given(
    # some item is left to each user
    st.lists(st.integers(1, 20), min_size=1, max_size=30).filter(
        lambda items: all(set(items[user::3]) < set(items) for user in range(3))
    ),
    st.sampled_from(["uniform", "popularity"]),
    st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any),
    st.integers(1, 9),
    st.booleans(),
)
def test_users_in_turn_get_the_items_that_recbole_draws(items, distribution, counts, num, is_repeatable):
    columns = {"user": torch.arange(len(items)) % 3, "item": torch.tensor(items)}
    data = SimpleNamespace(uid_field="user", iid_field="item", user_num=3, item_num=22, inter_feat=columns)

    def drawn(draw):
        made = (
            RepeatableSampler(["train"], data, distribution)
            if is_repeatable
            else Sampler(["train"], [data], distribution)
        )
        np.random.seed(0)
        found = draw(made.set_phase("train"))
        return found, np.random.rand()

    users = np.flatnonzero(counts)
    numbers = np.array(counts)[users]
    own = np.arange(numbers.sum()) % 21 + 1
    parts = np.split(own, numbers.cumsum()[:-1])
    with stock():
        theirs = drawn(
            lambda made: np.concatenate(
                [made.sample_by_user_ids(np.full(len(p), u), p, num) for u, p in zip(users, parts)]
            )
        )
    ours = drawn(lambda made: sample_by_users(made, users, numbers, own, num))
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


def test_a_user_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"user_id \[3\] not exist"):
        sampler(Sampler, [1, 2, 3], 1.0).sample_by_user_ids([0, 3], [1, 2], 1)
