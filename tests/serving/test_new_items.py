"""Items that came after training, against least squares solved by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving import Recommender
from recbole_dsl.serving.artifact import Artifact
from tests.serving.artifacts import brute_force, make
from tests.serving.test_recommender import load

NEW = {"new": ["u1", "u3", "u1"], "newer": ["u2"]}


def least_squares(users, had):
    """The vector nearest to products of 1 with ``had`` and of 0 with all, and short."""
    ridge = 0.6 * (users**2).sum() / users.shape[1]
    rows = np.vstack([users, users[had], np.sqrt(ridge) * np.eye(users.shape[1])])
    wanted = np.concatenate([np.zeros(len(users)), np.ones(len(had)), np.zeros(users.shape[1])])
    return np.linalg.lstsq(rows, wanted, rcond=None)[0]


def expected_vectors(made, lists):
    """Those of the items that ``lists`` of users had, brought to the scale of the trained ones."""
    users, items = made.users.astype(np.float64), made.items.astype(np.float64)
    of_item = [[u for u, trained in enumerate(made.trained) if i in trained] for i in range(len(items))]
    sample = [item for item, had in enumerate(of_item) if had]
    folded = np.array([least_squares(users, of_item[item]) for item in sample])
    ridge = 1e-3 * (folded**2).sum() / folded.shape[1]
    rows = np.vstack([folded, np.sqrt(ridge) * np.eye(folded.shape[1])])
    wanted = np.vstack([items[sample], np.zeros((folded.shape[1], folded.shape[1]))])
    scale = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return np.array([least_squares(users, had) @ scale for had in lists])


@settings(max_examples=25)
@given(
    st.integers(0, 30), st.sampled_from(["fp32", "int8"]), st.sampled_from([0.4, 1]),
    st.sampled_from(["all", "trained"]), st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=3),
)  # fmt: skip
def test_new_items_are_those_of_least_squares(seed, values, density, level, lists):
    made = make(seed, values=values, density=density, level=level)
    lists = [sorted(users) for users in lists]
    new = {f"new{n}": [f"u{user}" for user in users] for n, users in enumerate(lists)}
    before = load(made)
    recommender = before.with_items(new)
    vectors = recommender.to_numpy()
    assert vectors.item_tokens.tolist() == [f"i{item}" for item in range(20)] + list(new)
    assert (vectors.users == made.users).all() and (vectors.items[:20] == made.items).all()
    wanted = expected_vectors(made, lists)
    assert np.allclose(vectors.items[20:], wanted, atol=1e-4 * max(1, np.abs(wanted).max()))
    seen = made.everything if level == "all" else made.trained
    items, scores = recommender.recommend([f"u{user}" for user in range(12)], 23)
    for user in range(12):
        exact = (made.users[user].astype(np.float64) * vectors.items).sum(1).astype(np.float32)
        had = [20 + n for n, users in enumerate(lists) if user in users]
        best, best_scores = brute_force(exact, 23, [*seen[user], *had])
        assert items[user, : len(best)].tolist() == [vectors.item_tokens[item] for item in best]
        assert scores[user, : len(best)].tolist() == best_scores
    # the one before is as it was
    assert len(before.items) == 20 and len(before.recommend("u1", 99)[0]) <= 20


def test_new_items_are_taken_wherever_items_are():
    recommender = load(make()).with_items(NEW)
    recommender.prepare()
    items, _ = recommender.recommend_for([["new", "i1"]], 22)
    assert "newer" in items[0] and "new" not in items[0]
    assert len(recommender.similar_items("new", 30)[0]) == 21 and "newer" in recommender.similar_items("i1", 30)[0]
    assert recommender.recommend("u5", 1, items=["newer"])[0].tolist() == ["newer"]
    popular, counts = recommender.recommend("nobody", 22, unknown="popular")
    assert dict(zip(popular, counts))["new"] == 2 and dict(zip(popular, counts))["newer"] == 1


def test_it_makes_no_difference_in_how_many_calls_they_come():
    at_once = load(make()).with_items(NEW)
    one_by_one = load(make()).with_items({"new": NEW["new"]}).with_items({"newer": NEW["newer"]})
    assert (at_once.to_numpy().items == one_by_one.to_numpy().items).all()
    for ask in (lambda r: r.recommend(["u1", "u2"], 22), lambda r: r.recommend_for([["newer"]], 5)):
        assert ask(at_once)[0].tolist() == ask(one_by_one)[0].tolist()


def test_what_cannot_be_folded_in_is_passed_over_if_that_is_said():
    given = {"i1": ["u1"], "gone": ["nobody"], "new": ["u1", "nobody", "u3"], "none": []}
    found = load(make()).with_items(given, errors="ignore")
    assert found.items.all.tolist()[20:] == ["new"] and found.header["n_items"] == 21
    assert (found.to_numpy().items[20] == load(make()).with_items(NEW).to_numpy().items[20]).all()
    same = load(make())
    assert same.with_items({}) is same.with_items({"i1": ["u1"]}, errors="ignore") is same


CASES = {
    "known": ({"i1": ["u1"]}, "new items=i1: must be an item that the model was not trained on"),
    "an unknown user": ({"x": ["u1", "q"]}, "users of x=q: must be users that the model was trained on"),
    "no user": ({"x": []}, "users of x: must be at least one user"),
    "no mapping": (["x"], r"new items=\['x'\]: must be a mapping from the token of an item to those of its users"),
    "no tokens": ({"x": None}, "users of x=None: must be tokens"),
    "no text": ({1.5: ["u1"]}, "new items=1.5: must be tokens, which are texts"),
}


@pytest.mark.parametrize("new, message", CASES.values(), ids=CASES.keys())
def test_what_is_wrong_with_new_items_is_one_line(new, message):
    with pytest.raises(DSLError, match=f"^{message}$"):
        load(make()).with_items(new)


def test_an_artifact_that_does_not_know_who_had_what_takes_no_new_items():
    with pytest.raises(DSLError, match=r"^new items: an artifact of --seen=none takes none"):
        load(make(level="none")).with_items(NEW)
    with pytest.raises(DSLError, match=r"^new items: BPR takes none, as its vectors have more than 1024 columns"):
        load(make(n_columns=1025)).with_items(NEW)
    with pytest.raises(DSLError, match=r"^errors=skip: must be one of raise, ignore"):
        load(make()).with_items(NEW, errors="skip")


def test_the_bias_of_an_item_is_folded_in_with_its_vector():
    made = make()
    made.users[:, -1] = 2
    header = {**made.header, "scorer": {**made.header["scorer"], "has_bias": True}}
    from recbole_dsl.serving.csr import CSR
    from recbole_dsl.serving.packed_table import PackedTable

    table = PackedTable.of(CSR.of_nonzero(made.users), "fp32")
    header["scorer"]["users"] = table.describe()
    arrays = {name: one for name, one in made.arrays.items() if not name.startswith("product.users")}
    found = Recommender.of(Artifact("m.rdsl", header, {**arrays, **table.arrays("product.users")})).with_items(NEW)
    wanted = expected_vectors(made, [[1, 3], [2]])
    assert np.allclose(found.to_numpy().items[20:], wanted, atol=1e-4 * np.abs(wanted).max())
