"""Clicks that are of no users and no items, as logs of advertisements have them."""

import os

import pytest
from recbole.quick_start import run_recbole

from recbole_dsl import DSLError, run_recbole_dsl
from recbole_dsl.data import kept_dataset
from recbole_dsl.serving import export
from tests.running import metrics


@pytest.fixture
def clicks(tmp_path):
    """Options for a dataset of two fields and a label."""
    rows = [f"s{row % 17}\td{row % 3}\t{int(row * 7 % 11 > 4)}" for row in range(400)]
    (tmp_path / "data" / "clicks").mkdir(parents=True)
    text = "\n".join(["site:token\tdevice:token\tlabel:float", *rows]) + "\n"
    (tmp_path / "data" / "clicks" / "clicks.inter").write_text(text)
    return {
        "data_path": str(tmp_path / "data"),
        "load_col": None,
        "USER_ID_FIELD": None,
        "ITEM_ID_FIELD": None,
        "train_neg_sample_args": None,
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"},
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "epochs": 3,
        "embedding_size": 8,
        "show_progress": False,
    }


@pytest.mark.parametrize("model", ["FM", "DeepFM", "WideDeep"])
def test_density_one_gives_the_metrics_of_stock_recbole(model, clicks, tmp_path, monkeypatch):
    stock = run_recbole(model, "clicks", config_dict=dict(clicks), saved=False)
    monkeypatch.setattr(kept_dataset, "_WORTH", 0)
    options = {**clicks, "density": 1, "data_cache": str(tmp_path / "kept")}
    # the second time from the cache
    for _ in range(2):
        ours = run_recbole_dsl(model, "clicks", config_dict=options, saved=False)
        assert metrics(ours) == stock
        assert len(os.listdir(tmp_path / "kept")) == 1


def test_a_sparse_model_is_trained_and_nothing_tells_to_recommend(clicks, capsys):
    result = run_recbole_dsl("DeepFM", "clicks", config_dict={**clicks, "density": 0.3})
    assert 0 < result["test_result"]["auc"] < 1
    assert "recbole-dsl export" not in "".join(capsys.readouterr())
    with pytest.raises(DSLError, match="dataset=clicks: must have USER_ID_FIELD and ITEM_ID_FIELD"):
        export(result["model_file"], "model.rdsl")
