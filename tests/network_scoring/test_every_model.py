"""Every RecBole model: served from its artifact alone, with the scores that RecBole's own code gives."""

import shutil

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from benchmarks.model_cases import CASES
from recbole_dsl.network_scoring.artifact import load
from recbole_dsl.network_scoring.randomness import drawing_from
from recbole_dsl.serving.artifact import read_artifact
from recbole_dsl.serving.csr import CSR
from recbole_dsl.sparse import deferred
from tests.network_scoring.exported import DENSITY, made
from tests.tiny import write_tiny
from tests.training.test_models import optional_packages, options_of

__all__ = ["optional_packages"]

AUTOENCODERS = {"MultiVAE", "MultiDAE", "MacridVAE", "CDAE", "RaCT", "RecVAE", "DiffRec", "LDiffRec"}
# whose scores are random in RecBole
RANDOM = {"KTUP", "KGIN", "MCCLK"}

all_cases = pytest.mark.parametrize(
    "family, case", [(f, case) for f, cases in CASES.items() for case in cases if case != "S3Rec-finetune"]
)


@all_cases
def test_scores_without_its_data_as_with_it(family, case, tmp_path, monkeypatch):
    monkeypatch.setattr(deferred, "SMALLEST", 0)
    data = tmp_path / "data"
    data.mkdir()
    write_tiny(data / "tiny")
    exported = made({**options_of(family, case, str(data)), **DENSITY})
    path = exported.write("model.rdsl")
    users = np.arange(5)
    ids = torch.from_numpy(users + 1)
    if exported.is_sequential:
        # the last sequence that RecBole makes of a user, and the item that it is to be followed by
        rows = exported.dataset[
            np.array([(exported.dataset.inter_feat["user_id"] == i).nonzero().max() for i in ids])
        ]
        histories = [
            [*sequence[:length].tolist(), target][-exported.config["MAX_ITEM_LIST_LENGTH"] :]
            for sequence, length, target in zip(
                rows["item_id_list"], rows["item_length"].tolist(), rows["item_id"].tolist()
            )
        ]
        table = _sequences(rows, histories, exported.config)
    else:
        table = exported.dataset.join(Interaction({"user_id": ids}))
    shutil.rmtree(data)

    scorer = load(read_artifact(path))
    assert scorer.takes_histories == (family == "sequential" or case.partition("-")[0] in AUTOENCODERS)
    scores = scorer.scores(users)
    if scorer.draws:
        assert case.partition("-")[0] in RANDOM
        for row in users:
            with drawing_from(exported.config["seed"]):
                np.testing.assert_allclose(scores[[row]], exported.expected(table[[row]]), atol=1e-6)
    else:
        np.testing.assert_allclose(scores, exported.expected(table), rtol=1e-5, atol=1e-6)
    best, best_scores = scorer.top(users, 3, None, None)
    assert (np.take_along_axis(scores, best, 1) == best_scores).all()
    np.testing.assert_allclose(best_scores, -np.sort(-scores, 1)[:, :3])
    if scorer.takes_histories:
        lists = CSR.of_lists([[3, 9, 4], [7]])
        ids, found = scorer.top_for(lists, 5, None, None)
        assert ids.shape == found.shape == (2, 5) and np.isfinite(found).all()
        again = scorer.top_for(lists.take(np.array([1])), 5, None, None)
        assert (again[0] == ids[1:]).all(), "who else is asked for does not matter"
    if exported.is_sequential:
        # RecBole makes no sequence of a user with one interaction
        scorer.sequences = CSR.of_lists([[]] * 41)
        best, _ = scorer.top(users, 3, None, None)
        # that divides by the number of items gets nothing
        assert (best >= 0).all() == (case != "CORE-ave")


def _sequences(rows, histories, config):
    longest = config["MAX_ITEM_LIST_LENGTH"]
    padded = torch.tensor([[*history, *[0] * (longest - len(history))] for history in histories])
    rows.update(
        Interaction(
            {
                "item_id_list": padded,
                "item_length": torch.tensor([len(history) for history in histories]),
                "neg_item_id_list": padded,
            }
        )
    )
    return rows
