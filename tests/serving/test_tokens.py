"""Tokens of every kind come back, are found again, and must be distinct texts in a file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.tokens import LONGEST, Tokens

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def read(text, lengths):
    arrays = {"users.text": np.frombuffer(text, np.uint8), "users.lengths": np.array(lengths)}
    return Tokens.read(Artifact("a.rdsl", {}, arrays), "users", len(lengths))


@given(st.lists(TEXTS, unique=True, max_size=30), st.lists(TEXTS, max_size=5))
def test_tokens_are_found_where_they_are_and_others_nowhere(tokens, others):
    stored = Tokens.of(tokens, "users")
    again = Tokens.read(Artifact("a.rdsl", {}, stored.arrays("users")), "users", len(tokens))
    for tried in (stored, again):
        assert len(tried) == len(tokens) and [tried[i] for i in range(len(tokens))] == tokens
        assert tried.all.tolist() == tokens
        asked = [*reversed(tokens), *others]
        wanted = [tokens.index(token) if token in tokens else -1 for token in asked]
        assert tried.ids(asked).tolist() == wanted


def test_ids_of_any_shape_become_tokens_and_minus_one_nothing():
    for n in (2, 5000):
        tokens = Tokens.of([f"t{i}" for i in range(n)], "items")
        found = tokens.of_ids(np.array([[1, -1], [0, 1]]))
        assert found.tolist() == [["t1", None], ["t0", "t1"]]
        assert tokens.of_ids(np.empty((0, 3), np.int64)).shape == (0, 3)


def test_a_lone_half_of_a_character_is_no_token():
    assert Tokens.of(["a", "b"], "users").ids(["\ud800", "a"]).tolist() == [-1, 0]
    with pytest.raises(DSLError, match="must be text of whole characters"):
        Tokens.of(["\ud800"], "users")
    with pytest.raises(DSLError, match=f"must have at most {LONGEST} bytes"):
        Tokens.of(["x" * (LONGEST + 1)], "users")


@pytest.mark.parametrize(
    "text, lengths, problem",
    [
        (b"aba", np.array([1, 1, 1], np.uint8), "all distinct"),
        (b"\xff\xfe", np.array([1, 1], np.uint8), "UTF-8"),
        ("é".encode(), np.array([1, 1], np.uint8), "UTF-8"),
        (b"abc", np.array([1, 1], np.uint8), r"users.text is \(3,\), must be \(2\)"),
        (b"ab", np.array([1, 1], np.int64), "users.lengths is int64, must be uint8 or uint16"),
        (b"", np.array([0, 0], np.uint8), "all distinct"),
    ],
)
def test_what_is_no_list_of_distinct_texts_is_refused(text, lengths, problem):
    with pytest.raises(DSLError, match=problem):
        read(text, lengths)


def test_tokens_whose_hashes_are_the_same_are_told_apart():
    tokens = Tokens.of([f"t{i}" for i in range(9)], "users")
    tokens._hashes[:] = 0
    import recbole_dsl.serving.tokens as module

    usual, module._hashes = module._hashes, lambda text, offsets: np.zeros(len(offsets) - 1, np.uint64)
    try:
        assert not tokens._repeated()
        assert tokens.ids(["t8", "t0", "x"]).tolist() == [8, 0, -1]
    finally:
        module._hashes = usual
