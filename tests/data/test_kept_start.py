import pytest
import torch
from recbole.config import Config
from scipy.sparse import random as random_matrix

from recbole_dsl.data import kept_start
from recbole_dsl.data.kept_start import kept_factors


@pytest.mark.parametrize("densities", [(0.1, 0.3), None])
def test_kept_factors_are_those_that_were_found(options, tmp_path, monkeypatch, densities):
    monkeypatch.setattr(kept_start, "_WORTH", 0)
    config = Config("BPR", "tiny", config_dict={**options, "data_cache": str(tmp_path)})
    interactions = random_matrix(300, 80, 0.1, "csr", random_state=0)
    found = kept_factors(config, interactions, 16, densities)
    monkeypatch.setattr(kept_start, "best_factors", None)
    monkeypatch.setattr(kept_start.Factors, "__init__", None)
    kept = kept_factors(config, interactions, 16, densities)
    assert torch.equal(kept.users(0, 300), found.users(0, 300))
    assert torch.equal(kept.items(3, 80, slice(2, 9)), found.items(3, 80, slice(2, 9)))
    for name in ("n_standing_out", "damping", "steps"):
        assert getattr(kept, name) == getattr(found, name)
    interactions.data[0] = 0
    with pytest.raises(TypeError):
        kept_factors(config, interactions, 16, densities)
