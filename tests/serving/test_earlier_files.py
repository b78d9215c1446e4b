"""Artifacts that earlier code wrote are read, and recommend what they did when they were made.

There is one for each way that a table, a user history or a network is stored.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_dsl.serving import Recommender

FILES = Path(__file__).parent / "files"
RECOMMENDED = json.loads((FILES / "recommendations.json").read_text())
REQUESTS = {"recommend": ["u3", "u17"], "recommend_for": [["i3", "i9"]], "similar_items": ["i3"]}


@pytest.mark.parametrize("name", RECOMMENDED)
def test_an_artifact_of_an_earlier_version_recommends_as_before(name):
    recommender = Recommender.load(FILES / f"{name}.rdsl")
    for request, (items, scores) in RECOMMENDED[name].items():
        found, found_scores = getattr(recommender, request)(REQUESTS[request], 5)
        assert found.tolist() == items
        np.testing.assert_allclose(found_scores, scores, rtol=1e-4)
