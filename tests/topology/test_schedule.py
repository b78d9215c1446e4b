"""How the update ratio falls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_dsl.topology.schedule import FINAL_RATIO, SCHEDULES, update_ratio


@given(st.sampled_from(list(SCHEDULES)), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_schedules_fall_from_the_first_ratio_to_the_last(name, first, a, b):
    early, late = sorted((a, b))
    assert update_ratio(name, first, 0.0) == pytest.approx(first)
    assert update_ratio(name, first, early) >= update_ratio(name, first, late) - 1e-12
    end = first if name == "constant" else min(first, FINAL_RATIO)
    assert update_ratio(name, first, 1.0) == pytest.approx(end)


def test_cosine_is_the_published_one():
    assert update_ratio("cosine", 0.5, 0.5) == pytest.approx((0.5 + 0.005) / 2)
