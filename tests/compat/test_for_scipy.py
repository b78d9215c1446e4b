import importlib

import numpy as np
import pytest
from scipy.sparse import dok_matrix

from tests.running import prepare

GRAPH_MODULES = [
    *(f"general_recommender.{name}" for name in ("gcmc", "lightgcn", "ncl", "ngcf", "spectralcf")),
    *(f"knowledge_aware_recommender.{name}" for name in ("kgin", "mcclk")),
]


@pytest.mark.parametrize("name", GRAPH_MODULES)
def test_a_graph_takes_many_entries_at_once(name):
    try:
        module = importlib.import_module(f"recbole.model.{name}")
    except ImportError as error:
        pytest.skip(f"needs a package: {error}")
    matrix = module.sp.dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(0, 2): 1, (1, 0): 2})
    assert isinstance(matrix, dok_matrix)
    np.testing.assert_array_equal((matrix + matrix).toarray(), [[0, 0, 2], [4, 0, 0]])


def test_the_graph_of_lightgcn(options):
    model = prepare("LightGCN", options)[1]
    interactions = model.interaction_matrix.toarray()
    graph = np.block(
        [
            [np.zeros((model.n_users, model.n_users)), interactions],
            [interactions.T, np.zeros((model.n_items, model.n_items))],
        ]
    )
    scale = (graph.sum(1) + 1e-7) ** -0.5
    expected = scale[:, None] * graph * scale
    np.testing.assert_allclose(model.norm_adj_matrix.to_dense().numpy(), expected, rtol=1e-5)
