"""Rows in the order of RecBole's sort."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from recbole.data.interaction import Interaction

from recbole_dsl.data.batches import row_taker
from recbole_dsl.data.sequences import SequenceInteraction

DTYPES = np.int64, np.int32, np.uint8, np.bool_, np.float32, np.float64
# few values, so that many are equal
SPECIAL = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 3.0]


class _Interaction(Interaction):
    """RecBole's, which sorts in descending order too, where it hands PyTorch a reversed array that it refuses."""

    def sort(self, by, ascending=True):
        tensor = torch.tensor
        with patch.object(torch, "tensor", lambda array: tensor(array.copy())):
            super().sort(by, ascending)


@st.composite
def columns_of(draw):
    rows = draw(st.integers(0, 12))
    columns = {}
    for number in range(draw(st.integers(1, 3))):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        values = st.sampled_from(SPECIAL) if dtype.kind == "f" else None
        if dtype.kind in "iu":
            values = st.integers(0 if dtype.kind == "u" else -3, 3)
        shape = draw(st.sampled_from([rows, (rows, 2)]))
        columns[f"column {number}"] = torch.from_numpy(draw(of_numpy.arrays(dtype, shape, elements=values)))
    return {**columns, "row": torch.arange(rows)}


@given(columns_of(), st.data())
def test_rows_are_sorted_as_recbole_sorts_them(columns, data):
    by = data.draw(st.permutations([name for name in columns if name != "row"]))
    ascending = data.draw(st.lists(st.booleans(), min_size=len(by), max_size=len(by)))
    if data.draw(st.booleans()):
        ascending = ascending[0]
    if len(by) == 1 and data.draw(st.booleans()):
        by = by[0]
    expected, found = _Interaction(dict(columns)), SequenceInteraction(dict(columns))
    expected.sort(by, ascending)
    found.sort(by, ascending)
    assert torch.equal(found["row"], expected["row"])
    for name, column in expected.interaction.items():
        np.testing.assert_array_equal(found[name].numpy(), column.numpy())


@pytest.mark.parametrize(
    "arguments", [("missing",), (["row", "missing"],), (3,), ("row", "up"), ("row", [1]), (["row"], [True, False])]
)
def test_what_cannot_be_sorted_by_is_refused_in_recboles_words(arguments):
    said = []
    for kind in (Interaction, SequenceInteraction):
        with pytest.raises((ValueError, TypeError)) as refused:
            kind({"row": torch.arange(3)}).sort(*arguments)
        said.append((refused.type, str(refused.value).split(" is not exist")[0]))
    assert said[0] == said[1]


RANGES = st.builds(range, st.integers(-3, 4), st.integers(-3, 5), st.sampled_from([1, 2, -1]))


@given(
    of_numpy.arrays(np.int64, st.integers(0, 9), elements=st.integers(-5, 4)) | RANGES,
    st.sampled_from([(5,), (5, 3)]),
)
def test_rows_are_taken_as_by_brackets(places, shape):
    column = torch.randn(shape)
    assert torch.equal(row_taker(places)(column), column[list(places)])
