"""Tokens of every kind come back, are found again, and must be distinct texts in a file."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.errors import DSLError
from recbole_dsl.serving.artifact import Artifact
from recbole_dsl.serving.stored_tokens import LONGEST
from recbole_dsl.serving.tokens import Tokens

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text("ab0", max_size=70),
    st.integers(0, 10**12).map(str),
    st.from_regex(r"item_[0-9]{1,4}|B0[0-9A-Z]{8}", fullmatch=True),
)


def read_arrays(n, **arrays):
    named = {f"users.{name}": array for name, array in arrays.items()}
    return Tokens.read(Artifact("a.rdsl", {}, named), "users", n)


def read(text, lengths):
    return read_arrays(len(lengths), text=np.frombuffer(text, np.uint8), lengths=np.array(lengths))


@given(st.lists(TEXTS, unique=True, min_size=1, max_size=30), st.lists(TEXTS, max_size=5))
def test_tokens_are_found_where_they_are_and_others_nowhere(tokens, others):
    stored = Tokens.of(tokens, "users")
    again = Tokens.read(Artifact("a.rdsl", {}, stored.arrays("users")), "users", len(tokens))
    for tried in (stored, again):
        assert len(tried) == len(tokens) and [tried[i] for i in range(len(tokens))] == tokens
        assert tried.all.tolist() == tokens
        assert tried.of_ids(np.arange(len(tokens))[:-1]).tolist() == tokens[:-1]
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
    tokens._ordered &= tokens._id_bits
    tokens._stored.hashes_of = lambda asked: np.zeros(len(asked), np.uint64)
    assert not tokens._are_repeated()
    assert tokens.ids(["t8", "t0", "x"]).tolist() == [8, 0, -1]


IDS = {
    "integers": ([str(i) for i in range(1, 5001)], 13),
    "with a name": ([f"user_{i}" for i in range(1, 5001)], 13),
    "ten digits or letters": ([f"B00{np.base_repr(36**6 + 7919 * i, 36)}" for i in range(5000)], 37),
    "in hexadecimal": ([f"{2**127 + i * 3**70:032x}" for i in range(5000)], 129),
}


@pytest.mark.parametrize("tokens, bits", IDS.values(), ids=IDS)
def test_ids_take_the_bits_that_their_characters_need(tokens, bits):
    arrays = Tokens.of(tokens, "users").arrays("users")
    assert sum(array.nbytes for array in arrays.values()) <= len(tokens) * bits / 8 + 700
    again = Tokens.read(Artifact("a.rdsl", {}, arrays), "users", len(tokens))
    assert again.all.tolist() == tokens and again.ids(tokens).tolist() == list(range(len(tokens)))
    assert again.ids([tokens[0][:-1], f"{tokens[0]}0" * 9, "\x00", ""]).tolist() == [-1] * 4


def test_texts_are_compressed():
    tokens = [f"ein Läufer in {i} Städten" for i in range(3000)]
    arrays = Tokens.of(tokens, "users").arrays("users")
    assert arrays.keys() == {"users.deflated"} and arrays["users.deflated"].nbytes < 20_000
    assert Tokens.read(Artifact("a.rdsl", {}, arrays), "users", 3000).all.tolist() == tokens


def deflated(lengths, text, more=b""):
    content = np.array(lengths, "<u2").tobytes() + text
    return np.frombuffer(zlib.compress(content) + more, np.uint8)


@pytest.mark.parametrize(
    "n, content",
    [
        (2, deflated([1, 1], b"abc")),
        (2, deflated([1, 2], b"ab")),
        (3, deflated([1, 1], b"ab")),
        (2, deflated([1, 1], b"ab", b"x")),
        (2, deflated([1, 1], b"ab")[:-1]),
        (2, np.zeros(0, np.uint8)),
        (2, np.arange(50, dtype=np.uint8)),
        # what would become a thousand times as large, and what claims to
        (99, deflated([65535] * 99, b"a" * 65535 * 99)),
        (2**31 - 2, deflated([1, 1], b"ab")),
    ],
)
def test_compressed_text_that_is_not_what_it_says_is_refused(n, content):
    with pytest.raises(DSLError, match="must be the compressed lengths and text"):
        read_arrays(n, deflated=content)


NUMBERED = {
    name.removeprefix("users."): array
    for name, array in Tokens.of([f"{i:0>9}abcdefghijklm" for i in range(9)], "users").arrays("users").items()
}


@pytest.mark.parametrize(
    "name, place, value, problem",
    [
        ("alphabet_sizes", 0, 0, "numbers >= 1"),
        ("alphabet_sizes", 0, 200, r"users.alphabets is \(\d+,\), must be"),
        ("alphabets", 0, 200, "must be of ASCII characters"),
        ("alphabets", 0, 0, "must be of ASCII characters"),
        ("alphabets", 9, ord("0"), "must be of ASCII characters that ascend"),
        ("widths", 0, 0, "widths must be from 1 to 56"),
        ("widths", 0, 255, "widths must be from 1 to 56"),
        ("widths", 0, 40, r"users.codes is \(\d+,\), must be"),
        ("codes", 0, 255, "must be numbers of texts"),
        ("codes", 1, NUMBERED["codes"][0], "all distinct"),
    ],
)
def test_numbers_that_are_no_distinct_texts_are_refused(name, place, value, problem):
    assert read_arrays(9, **NUMBERED)[8] == "000000008abcdefghijklm"
    changed = NUMBERED[name].copy()
    changed[place] = value
    with pytest.raises(DSLError, match=problem):
        read_arrays(9, **{**NUMBERED, name: changed})


def test_a_text_goes_on_only_where_a_part_of_it_is_full():
    # 12 places of 36 characters make two parts; the first is empty, the second is not
    sizes, alphabet = np.full(12, 36, np.uint8), np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)
    widths = np.array([1, 1], np.uint8)
    arrays = {"alphabet_sizes": sizes, "alphabets": np.tile(alphabet, 12), "widths": widths}
    assert read_arrays(1, **arrays, codes=np.zeros(16, np.uint8))[0] == ""
    assert read_arrays(1, **arrays, codes=np.array([1] + [0] * 15, np.uint8))[0] == "0"
    with pytest.raises(DSLError, match="must be numbers of texts"):
        read_arrays(1, **arrays, codes=np.array([2] + [0] * 15, np.uint8))
