"""What an artifact of a network is made of: columns, values and weights come back as they were."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from recbole.data.interaction import Interaction

from recbole_dsl.checkpoint.codec import as_bytes, from_bytes, from_json, to_json
from recbole_dsl.export.tracing import traced_table
from recbole_dsl.network_scoring.stored_features import is_whole, read_feature, store_feature

SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)
COLUMNS = st.one_of(
    arrays(np.int64, SHAPES, elements=st.integers(0, 300)),
    arrays(np.int64, SHAPES, elements=st.integers(-5, 2**40)),
    arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False)),
    arrays(np.float64, SHAPES, elements=st.floats(allow_nan=False)),
    st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 50)), min_size=1).map(
        lambda runs: np.repeat([value for value, _ in runs], [length for _, length in runs])
    ),
)


@given(COLUMNS)
def test_a_column_comes_back_as_it_was(values):
    stored = {}
    form = json.loads(json.dumps(store_feature(values, "a", stored)))
    found = read_feature(form, len(values), "a", stored)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    smaller = sum(array.nbytes for array in stored.values())
    assert smaller <= values.nbytes
    assert not is_whole(form) or not values.size or smaller * 8 >= values.size


@pytest.mark.parametrize("values, n_bytes", [([0, 1] * 400, 100), ([7] * 900 + [300] * 100, 8), (range(40), 30)])
def test_a_column_takes_as_few_bits_as_its_numbers_need(values, n_bytes):
    stored = {}
    store_feature(np.array(values), "a", stored)
    assert sum(array.nbytes for array in stored.values()) == n_bytes


@given(COLUMNS.filter(lambda values: values.size), st.integers(9, 20))
def test_a_column_of_another_length_is_refused(values, more):
    stored = {}
    form = store_feature(values, "a", stored)
    for length in (len(values) + more, 0):
        with pytest.raises(ValueError, match="a "):
            read_feature(form, length, "a", stored)
        with pytest.raises((ValueError, TypeError)):
            read_feature({**form, "shape": [length, *form["shape"][1:]]}, length, "a", stored)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_values_come_back_as_they_were(value):
    stored = {}
    form = json.loads(json.dumps(to_json(value, stored, "v"), allow_nan=False, sort_keys=True))
    found = from_json(form, stored, "v")
    assert found == value and stored == {}
    if isinstance(value, dict):
        assert list(found) == list(value), "in the same order"


def test_so_do_tensors_arrays_and_numbers_that_json_has_not():
    value = {
        "b": torch.arange(6).view(2, 3),
        "a": [torch.tensor([1.5, math.inf]), torch.tensor(True), torch.zeros(0, 4)],
        "__json__": {1: np.array([3, 4], np.int32), "nan": math.nan, "set": {1, 2}},
        "many": [torch.tensor([number]) for number in range(300)],
    }
    stored = {}
    form = json.loads(json.dumps(to_json(value, stored, "v"), allow_nan=False, sort_keys=True))
    assert len(stored) <= 4, "however many tensors there are"
    found = from_json(form, stored, "v")
    assert list(found) == list(value) and found["__json__"]["set"] == {1, 2}
    assert math.isnan(found["__json__"]["nan"]) and found["__json__"][1].dtype == np.int32
    for one, other in zip([value["b"], *value["a"], *value["many"]], [found["b"], *found["a"], *found["many"]]):
        assert one.dtype == other.dtype and torch.equal(one, other)


@given(arrays(st.sampled_from([np.int64, np.float64, np.bool_, np.int16]), SHAPES))
def test_arrays_that_a_file_has_no_type_for_are_bytes(array):
    content, form = as_bytes(array)
    found = from_bytes(content, json.loads(json.dumps(form)))
    assert found.dtype == array.dtype and content.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "use, noted",
    [
        (lambda table: table["a"], {"a"}),
        (lambda table: table.a, {"a"}),
        (lambda table: (len(table), "b" in table, table.columns), set()),
        (lambda table: table.shuffle(), set()),
        (lambda table: table.sort("b"), {"b"}),
        (lambda table: table[torch.tensor([1, 0])]["c"], {"c"}),
        (lambda table: table[:2].to("cpu").repeat(3)["b"], {"b"}),
        (lambda table: table.interaction["a"], {"a", "b", "c"}),
        (lambda table: table.numpy(), {"a", "b", "c"}),
    ],
)
def test_what_is_read_of_a_table_is_noted(use, noted):
    read = set()
    columns = {name: torch.arange(4) for name in "abc"}
    use(traced_table(Interaction(columns), read))
    assert read == noted
