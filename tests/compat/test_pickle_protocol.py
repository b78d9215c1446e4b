import pickle
import pickletools
from collections import OrderedDict
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_dsl.compat.pickle_protocol import translate

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    leaves | st.fractions() | st.sampled_from([OrderedDict, Fraction, "collections", "OrderedDict"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@settings(max_examples=30)
@given(values, st.sampled_from([2, 3, 4]))
def test_a_translated_pickle_makes_the_same(value, protocol):
    translated = translate(pickle.dumps([value, value], protocol))
    assert pickle.loads(translated) == [value, value]
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(translated)) <= 2
