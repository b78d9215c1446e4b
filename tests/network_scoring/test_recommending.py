"""From a training to recommendations of models that are no product, where their data is gone."""

import glob
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_dsl import DSLError, load_data_and_model, run_recbole_dsl
from recbole_dsl.export.exporting import export
from recbole_dsl.serving import Recommender
from tests.network_scoring.test_artifact import own_options
from tests.tiny import write_tiny
from tests.training.test_models import options_of
from tests.training.test_own_models import Mine

CASES = {"NeuMF": "general", "MultiVAE": "general", "SASRec": "sequential", "DeepFM": "context-aware"}
USERS = ["u3", "u1", "u17"]

_CHILD = """
import json, sys
from recbole_dsl.serving import Recommender
found = {}
for case in sys.argv[1:]:
    recommender = Recommender.load(case + ".rdsl")
    items, scores = recommender.recommend(["u3", "u1", "u17"], k=50, filter_seen="none")
    found[case] = [items.tolist(), scores.tolist()]
    if recommender.scorer.takes_histories:
        found[case].append(recommender.recommend_for([["i3", "i9"], ["i7"]], k=5)[0].tolist())
print(json.dumps(found))
"""


def test_they_are_served_in_a_process_that_has_no_data(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_tiny(data / "tiny")
    wanted = {}
    for case, family in CASES.items():
        options = {**options_of(family, case, str(data)), "epochs": 1, "eval_step": 1, "checkpoint_dir": case}
        run_recbole_dsl(config_dict={**options, "density": 0.3})
        (file,) = glob.glob(f"{case}/*.pth")
        export(file, f"{case}.rdsl", seen="none")
        wanted[case] = _expected(file)
        for other in Path(case).iterdir():
            other.unlink()
    shutil.rmtree(data)
    root = str(Path(__file__).parents[2])
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *CASES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(child.stdout)
    for case, scores in wanted.items():
        items, best, *for_histories = found[case]
        for row in range(len(USERS)):
            np.testing.assert_allclose([scores[row][item] for item in items[row]], best[row], rtol=1e-4, atol=1e-5)
            assert best[row] == sorted(best[row], reverse=True) and set(items[row]) == set(scores[row])
        assert len(for_histories) == (case in ("MultiVAE", "SASRec"))
        for first, second in for_histories:
            assert not {"i3", "i9"} & set(first) and "i7" not in second


def _expected(file):
    """For each of `USERS` the score of each item, by RecBole's code and all that the data has of the user."""
    config, model, dataset, *_ = load_data_and_model(file)
    ids = torch.from_numpy(dataset.token2id("user_id", USERS))
    table = dataset.join(Interaction({"user_id": ids}))
    if config["model"] == "SASRec":
        rows = dataset.inter_feat
        # the last row of a user has all items but the last one, which is its target
        last = [int((rows["user_id"] == user).nonzero().max()) for user in ids]
        sequences, lengths = rows["item_id_list"][last], rows["item_length"][last]
        sequences[torch.arange(len(ids)), lengths] = rows["item_id"][last]
        table = Interaction({"user_id": ids, "item_id_list": sequences, "item_length": lengths + 1})
    with torch.no_grad():
        try:
            scores = model.eval().full_sort_predict(table).view(len(ids), -1)
        except NotImplementedError:
            items = dataset.get_item_feature()
            pairs = table.repeat_interleave(len(items))
            pairs.update(items.repeat(len(ids)))
            scores = model.predict(pairs).view(len(ids), -1)
    names = dataset.id2token("item_id", np.arange(dataset.item_num))
    return [dict(zip(names[1:].tolist(), row[1:].tolist())) for row in scores]


def test_a_model_of_ones_own_is_loaded_by_its_class(data_path):
    run_recbole_dsl(Mine, config_dict={**own_options(data_path), "epochs": 1})
    (file,) = glob.glob("saved/*.pth")
    made = export(file, "mine.rdsl", model_class=Mine)
    items, _ = Recommender.load("mine.rdsl", model_class=Mine).recommend("u1", k=3)
    assert len(items) == 3
    if made.kind == "network":
        with pytest.raises(DSLError, match=r"give its class as model_class$"):
            Recommender.load("mine.rdsl")
