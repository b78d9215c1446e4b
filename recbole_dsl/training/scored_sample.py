"""Interactions on which the cost of scoring one is measured."""

from collections.abc import Callable
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_dsl.training.model_state import drop_caches

# of one interaction alone, a weight that moves changes the figure by a tenth
_SCORED = 32


def scored_sample(dataset: Dataset, device: Any) -> tuple[Callable[[AbstractRecommender, int], Tensor], int]:
    """What scores interactions that are spread over ``dataset``, for `measure_cost`, and their number."""
    rows = np.linspace(0, len(dataset) - 1, min(_SCORED, len(dataset))).astype(int)

    def score(model: AbstractRecommender, times: int) -> Tensor:
        drop_caches(model)
        return model.predict(dataset[np.tile(rows, times).tolist()].to(device))

    return score, len(rows)
