"""Recommending from tables: what brute force gives, and what is said about arguments that cannot be used."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving import Recommender, folding, product, top_k
from recbole_dsl.serving import recommender as recommending
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.csr import CSR
from tests.serving.artifacts import brute_force, make

MADE = make()


def load(made):
    return Recommender.of(Artifact("model.rdsl", made.header, made.arrays))


@pytest.fixture(scope="module")
def recommender():
    return load(MADE)


@given(
    st.integers(0, 30), st.integers(1, 30), st.sampled_from(["fp32", "fp16", "int8", "int4"]),
    st.sampled_from([0.05, 0.4, 1]), st.sampled_from(["all", "trained", "none"]), st.data(),
)  # fmt: skip
def test_recommendations_are_those_of_brute_force(seed, k, values, density, level, data):
    made = make(seed, values=values, density=density)
    n_items = len(made.items)
    users = data.draw(st.lists(st.integers(0, len(made.users) - 1), min_size=1, max_size=5))
    allowed = data.draw(st.none() | st.sets(st.integers(0, n_items - 1), min_size=1))
    exclude = data.draw(st.none() | st.sets(st.integers(0, n_items - 1)))
    items, scores = load(made).recommend(
        [f"u{user}" for user in users], k, filter_seen=level,
        items=None if allowed is None else [f"i{item}" for item in allowed],
        exclude=None if exclude is None else [f"i{item}" for item in exclude],
    )  # fmt: skip
    assert items.shape == scores.shape == (len(users), min(k, n_items)) and scores.dtype == np.float32
    for row, user in enumerate(users):
        left_out = {"all": made.everything[user], "trained": made.trained[user], "none": []}[level]
        of_user = (made.users[user].astype(np.float64) * made.items).sum(1).astype(np.float32)
        best, best_scores = brute_force(of_user, k, [*left_out, *(exclude or [])], allowed)
        found = [item for item in items[row] if item is not None]
        assert found == [f"i{item}" for item in best]
        assert scores[row, : len(best)].tolist() == best_scores
        assert (scores[row, len(best) :] == -np.inf).all()


def test_one_token_gives_one_row_and_only_what_is_there(recommender):
    many, many_scores = recommender.recommend(["u3"], 30)
    one, scores = recommender.recommend("u3", 30)
    n_left = len(MADE.items) - len(MADE.everything[3])
    assert one.shape == scores.shape == (n_left,) and many.shape == (1, len(MADE.items))
    assert one.tolist() == many[0, :n_left].tolist() and scores.tolist() == many_scores[0, :n_left].tolist()


def test_a_user_who_has_had_everything_gets_nothing(recommender):
    user = f"u{len(MADE.users) - 1}"
    assert recommender.recommend(user)[0].tolist() == []
    items, scores = recommender.recommend(["u0", user], 3)
    assert items[1].tolist() == [None] * 3 and (scores[1] == -np.inf).all() and None not in items[0]


@given(st.integers(0, 30), st.integers(1, 30))
def test_popular_items_are_those_that_most_had_in_the_training_data(seed, k):
    made = make(seed)
    counts = np.bincount(np.concatenate(made.trained).astype(int), minlength=len(made.items))
    best, best_scores = brute_force(counts, k)
    for level in ("all", "trained", "none"):
        found = load(make(seed, level=level))
        items, scores = found.recommend(["nobody", "u1"], k, unknown="popular", exclude=[])
        assert items[0].tolist() == [f"i{item}" for item in best] and scores[0].tolist() == best_scores
        assert items[1].tolist() == found.recommend(["u1"], k)[0][0].tolist()


def test_popular_items_keep_to_the_candidates(recommender):
    items, _ = recommender.recommend("nobody", 5, unknown="popular", items=["i4", "i5", "i6"], exclude=["i5"])
    assert sorted(items) == ["i4", "i6"]
    items, _ = recommender.recommend_for([[], ["x"], ["i1"]], 2, unknown="popular")
    assert items[0].tolist() == items[1].tolist() == recommender.recommend("x", 2, unknown="popular")[0].tolist()


def test_a_history_is_folded_in_by_least_squares(recommender):
    """As a weighted least squares problem solved by itself."""
    history = [2, 7, 11]
    items = MADE.items.astype(np.float64)
    ridge = 0.6 * (items**2).sum() / items.shape[1]
    rows = np.vstack([items, items[history], np.sqrt(ridge) * np.eye(items.shape[1])])
    wanted = np.concatenate([np.zeros(len(items)), np.ones(len(history)), np.zeros(items.shape[1])])
    vector = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    assert np.allclose(recommender.scorer.fold_in(CSR.of_lists([history]))[0], vector, atol=1e-6)
    found, scores = recommender.recommend_for([[f"i{item}" for item in history]], 20)
    assert len(found[0]) == 20 and found[0, 17:].tolist() == [None] * 3
    assert not set(found[0]) & {f"i{item}" for item in history}
    assert np.allclose(scores[0, :17], np.sort(np.delete(items @ vector, history))[::-1], atol=1e-5)
    assert None not in recommender.recommend_for([["i2"]], 20, filter_seen=False)[0]


@pytest.mark.parametrize("n_columns, density", [(300, 0.01), (300, 0.5)], ids=["by entries", "dense"])
def test_the_products_of_a_wide_table_are_those_of_the_dense_one(n_columns, density):
    made = make(n_items=700, n_columns=n_columns, density=density)
    found = folding.gram(load(made).scorer.items)
    np.testing.assert_array_equal(found, made.items.T.astype(np.float64) @ made.items)


def test_a_table_that_is_too_wide_to_fold_histories_in_takes_none(monkeypatch):
    wide = load(make(n_columns=1025))
    assert len(wide.recommend("u1", 3)[0]) == 3 and len(wide.similar_items("i1", 3)[0]) == 3
    with pytest.raises(DSLError, match=r"^histories: BPR takes none, as its vectors have more than 1024 columns"):
        wide.recommend_for([["i1"]])
    monkeypatch.setattr(product, "_MOST_FOR_HISTORIES", 7)
    eight = load(make())
    eight.prepare()
    assert not eight.scorer.takes_histories and "_prior" not in vars(eight.scorer)


def answers(recommender):
    return [
        recommender.recommend([f"u{user}" for user in range(12)], 5),
        recommender.recommend("u1", 3, exclude=["i2"]),
        recommender.recommend_for([["i1"], ["i4", "i5"]], 4),
        recommender.similar_items(["i3", "i7", "i1"], 6),
        recommender.recommend("nobody", 4, unknown="popular"),
    ]


@pytest.mark.parametrize("density", [0.2, 1])
@pytest.mark.parametrize("level", ["all", "none"])
def test_answers_are_the_same_before_while_and_after_it_is_prepared(density, level):
    recommender = load(make(density=density, level=level))
    expected = answers(load(make(density=density, level=level)))
    with ThreadPoolExecutor(4) as pool:
        prepared = [pool.submit(recommender.prepare) for _ in range(3)]
        found = [pool.submit(answers, recommender) for _ in range(12)]
        for one in prepared:
            assert one.result() is None
    for all_answers in [*(one.result() for one in found), answers(recommender)]:
        for (items, scores), (wanted, wanted_scores) in zip(all_answers, expected):
            assert items.tolist() == wanted.tolist() and scores.tolist() == wanted_scores.tolist()


def test_nothing_is_made_in_a_request_after_it_was_prepared(monkeypatch):
    recommender = load(make(n_columns=9))
    recommender.prepare()
    parts = (recommender, recommender.scorer, recommender.user_histories, recommender.scorer.items)
    made = [set(vars(part)) for part in parts]
    monkeypatch.setattr(top_k, "build_index", lambda table: pytest.fail("in a request"))
    monkeypatch.setattr(top_k, "_compiled", lambda: pytest.fail("in a request"))
    answers(recommender)
    recommender.prepare()
    assert made == [set(vars(part)) for part in parts]


def test_a_job_of_much_work_is_prepared_and_a_request_never_is(monkeypatch):
    monkeypatch.setattr(recommending, "_WORTH_PREPARING", 100)
    jobs = {
        "batches": lambda r: list(r.batches(k=3)),
        "batches_for": lambda r: list(r.batches_for(["a"] * 9, [["i1"]] * 9, 3)),
        "batches_of_similar": lambda r: list(r.batches_of_similar(["i1"] * 9, 3)),
    }
    for job in jobs.values():
        one = load(MADE)
        answers(one)
        assert not one._is_prepared
        job(one)
        assert one._is_prepared


def test_items_alike_are_found_in_the_table_of_the_products(recommender):
    recommender.prepare()
    by_product, by_cosine = recommender.scorer._by_product, recommender.scorer._by_cosine
    assert by_cosine._table.values is by_product._table.values and by_cosine._index is by_product._index


def test_similar_items_are_those_of_the_highest_cosine(recommender):
    lengths = np.linalg.norm(MADE.items, axis=1)
    cosines = MADE.items @ MADE.items.T / np.maximum(np.outer(lengths, lengths), 1e-9)
    for item in range(len(MADE.items)):
        found, scores = recommender.similar_items(f"i{item}", 5, exclude=["i0"])
        _, best = brute_force(cosines[item], 5, [item, 0])
        assert f"i{item}" not in found and "i0" not in found and np.allclose(scores, best, atol=1e-6)
    assert recommender.similar_items(["i1", "i2"], 3)[0].shape == (2, 3)


def test_scores_are_what_the_model_makes_of_the_products():
    products = load(MADE).recommend(["u1"], 5)
    shares = load(make(transform="sigmoid")).recommend(["u1"], 5)
    assert shares[0].tolist() == products[0].tolist()
    assert np.allclose(shares[1], 1 / (1 + np.exp(-products[1])))


def test_numbers_are_taken_for_the_tokens_that_they_are_written_as():
    recommender = load(make(users="0123456789AB"))
    expected = recommender.recommend(["3", "4"])[0].tolist()
    for users in ([3, 4], np.array([3, 4]), ("3", 4), np.array(["3", "4"])):
        assert recommender.recommend(users)[0].tolist() == expected


@pytest.mark.parametrize("make_vectors", ["to_numpy", "to_scipy", "to_torch"])
@pytest.mark.parametrize("density", [0.2, 1])
def test_tables_are_given_with_their_tokens(make_vectors, density):
    made = make(density=density)
    vectors = getattr(load(made), make_vectors)()
    dense = {
        "to_numpy": lambda table: table,
        "to_scipy": lambda table: table.toarray(),
        "to_torch": lambda table: table.to_dense().numpy(),
    }
    for table, wanted in ((vectors.users, made.users), (vectors.items, made.items)):
        assert (dense[make_vectors](table) == wanted).all()
    assert vectors.user_tokens[3] == "u3" and vectors.item_tokens.tolist() == [f"i{i}" for i in range(20)]


CASES = {
    "k=0": (lambda r: r.recommend("u1", 0), "k=0: must be an integer >= 1"),
    "k negative": (lambda r: r.recommend("u1", -3), "k=-3: must be an integer >= 1"),
    "k a fraction": (lambda r: r.recommend("u1", 1.5), "k=1.5: must be an integer >= 1"),
    "k a truth": (lambda r: r.recommend("u1", True), "k=True: must be an integer >= 1"),
    "k a text": (lambda r: r.recommend("u1", "5"), "k='5': must be an integer >= 1; here it is a string"),
    "an unknown user": (lambda r: r.recommend("x"), "users=x: must be users that the model was trained on"),
    "many unknown users": (
        lambda r: r.recommend(["u1", *"abcdefg", "a"]),
        "users=a, b, c, d, e and 2 more: must be users that the model was trained on",
    ),
    "no token": (lambda r: r.recommend([None]), "users=None: must be tokens, which are texts"),
    "no tokens": (lambda r: r.recommend(None), "users=None: must be tokens"),
    "bytes": (lambda r: r.recommend(b"u1"), "users=b'u1': must be tokens"),
    "a fraction as a token": (lambda r: r.recommend([1.5]), "users=1.5: must be tokens, which are texts"),
    "an unknown item": (
        lambda r: r.recommend("u1", items=["i1", "x"]), "items=x: must be items that the model was trained on"
    ),
    "no item to choose from": (lambda r: r.recommend("u1", items=[]), "items: must name at least one item"),
    "an unknown item left out": (
        lambda r: r.recommend("u1", exclude="x"), "exclude=x: must be items that the model was trained on"
    ),
    "another filter": (
        lambda r: r.recommend("u1", filter_seen=True), "filter_seen=True: must be one of all, trained, none"
    ),
    "another answer to unknown users": (
        lambda r: r.recommend("u1", unknown="skip"), "unknown=skip: must be one of error, popular"
    ),
    "an empty history": (
        lambda r: r.recommend_for([["i1"], []]), "histories, number 2: must have an item, or say unknown=popular"
    ),
    "an unknown item in a history": (
        lambda r: r.recommend_for([["i1", "x"]]), "histories=x: must be items that the model was trained on"
    ),
    "no history": (lambda r: r.recommend_for(["i1"]), "histories, number 1=i1: must be a list of tokens"),
    "no histories": (lambda r: r.recommend_for("i1"), "histories=i1: must be a list of lists of tokens"),
    "no such item": (lambda r: r.similar_items("x"), "items=x: must be items that the model was trained on"),
    "a page as a token": (lambda r: r.recommend("x\n" * 999), r"users=x x x"),
}  # fmt: skip


@pytest.mark.parametrize("call, message", CASES.values(), ids=CASES.keys())
def test_what_cannot_be_used_is_one_line(call, message, recommender):
    with pytest.raises(DSLError, match=f"^{re.escape(message)}") as refused:
        call(recommender)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_nobody_and_no_history_get_an_empty_answer(recommender):
    for found in (recommender.recommend([]), recommender.recommend_for([]), recommender.similar_items([])):
        assert found[0].shape == found[1].shape == (0, 10)
    assert list(recommender.batches([])) == []


@pytest.mark.parametrize("level, refused", [("trained", ["all"]), ("none", ["all", "trained"])])
def test_a_filter_that_the_artifact_knows_nothing_for_is_refused(level, refused):
    recommender = load(make(level=level))
    for wanted in refused:
        with pytest.raises(
            DSLError, match=f"filter_seen={wanted}: must be {level}, as the artifact was exported so"
        ):
            recommender.recommend("u1", filter_seen=wanted)
    assert (
        recommender.recommend(["u1"])[0].tolist() == recommender.recommend(["u1"], filter_seen=level)[0].tolist()
    )


def test_batches_are_the_whole_one_after_the_other(recommender):
    recommender.scorer.batch_size = 5
    try:
        users, items, scores = (np.concatenate(part) for part in zip(*recommender.batches(k=4)))
    finally:
        del recommender.scorer.batch_size
    assert users.tolist() == [f"u{user}" for user in range(12)]
    wanted = recommender.recommend(users, 4)
    assert items.tolist() == wanted[0].tolist() and (scores == wanted[1]).all()
