"""Tokens come back as they were, and damaged ones are seen."""

from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.checkpoint.tokens import are_rows, pack_tokens, unpack_tokens

TOKENS = st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 10**20).map(str), st.just("007")), unique=True)


@given(TOKENS)
def test_tokens_come_back_as_they_were(tokens):
    encoded = pack_tokens(tokens)
    assert unpack_tokens(encoded) == tokens
    assert are_rows({"order": ["a"], "fields": {"a": 0}, "tokens": [encoded]})


@given(st.data())
@settings(max_examples=60)
def test_damaged_tokens_are_seen(data):
    tokens = pack_tokens(data.draw(st.sampled_from([["a", "ü", "xyz"], ["1", "22"]])))
    name = data.draw(st.sampled_from(sorted(tokens)))
    tensor = data.draw(
        st.sampled_from(
            [
                tokens[name].float(),
                tokens[name][None],
                tokens[name].long() - 10**6,
                tokens[name][:0] if name != "numbers" else tokens[name] > 0,
                None,
                "text",
            ]
        )
    )
    assert not are_rows({"order": [], "fields": {}, "tokens": [{**tokens, name: tensor}]})
    assert not are_rows({"order": [], "fields": {"a": 1}, "tokens": [tokens]})
