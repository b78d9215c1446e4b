"""Checkpoints that earlier versions wrote are loaded, evaluated and resumed."""

import gzip
from pathlib import Path

import pytest
import torch

from recbole_dsl import load_data_and_model, run_recbole_dsl
from recbole_dsl.checkpoint.checkpoint_file import read_checkpoint
from recbole_dsl.serving import Recommender, export
from recbole_dsl.training.configs import trainer_of

FILES = Path(__file__).parent / "files"


def unpacked(name):
    """The path of a copy of ``name``, in the current folder."""
    file = Path(f"{name}.pth").absolute()
    file.write_bytes(gzip.decompress((FILES / f"{name}.pth.gz").read_bytes()))
    return str(file)


@pytest.mark.parametrize("model", ["BPR", "MultiVAE", "SASRec"])
def test_a_checkpoint_of_version_4_is_loaded_and_resumed(model, data_path):
    file = unpacked(f"{model}-version-4")
    before = torch.load(file, weights_only=True)
    assert before["version"] == 4 and before["model"] == model and before["topology"]["updates"]
    config, network, _, _, valid, _ = load_data_and_model(file, data_path=data_path)
    for name, tensor in before["state_dict"].items():
        assert torch.equal(network.state_dict()[name], tensor), name
    found = trainer_of(config)(config, network).evaluate(valid, load_best_model=False)
    assert dict(found) == pytest.approx(before["best_valid_result"], abs=1e-3)
    run_recbole_dsl(config_dict={"resume": file, "data_path": data_path, "epochs": 3})
    after = read_checkpoint(file.replace(".pth", ".last"))
    assert after["run"] == before["run"] and after["record"]["epoch"] == [0, 1, 2]
    assert after["topology"]["updates"][: len(before["topology"]["updates"])] == before["topology"]["updates"]
    steps = [next(iter(one["optimizers"][0]["state"].values()))["step"] for one in (before, after)]
    assert steps[1] == 3 * steps[0] > 0
    assert after["rows"]["order"] == before["rows"]["order"]
    assert torch.equal(after["trained_on"]["sample"], before["trained_on"]["sample"])


def test_a_checkpoint_of_version_3_is_accepted_with_a_warning(data_path, caplog):
    file = unpacked("version-3")
    assert read_checkpoint(file)["version"] == 3
    load_data_and_model(file, data_path=data_path)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "=" in r.getMessage()]
    assert len(warnings) == 1 and "does not record which user or item each row belongs to" in caplog.text
    export(file, "a.rdsl", data_path=data_path)
    assert len(Recommender.load("a.rdsl").items.all) == 50
