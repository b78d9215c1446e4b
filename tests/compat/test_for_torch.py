import glob
import importlib
import os
import pickle

import pytest
import torch
from recbole.config import Config
from recbole.model.general_recommender import BPR
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import InputType, get_trainer

from tests.running import prepare


class OwnBPR(BPR):
    """A user's own model."""


@pytest.fixture
def dense(options):
    return {k: v for k, v in options.items() if k not in ("density", "update_interval")} | {"epochs": 2}


@pytest.mark.parametrize("before", [False, True])
def test_importing_sequential_models_leaves_anomaly_detection_as_it_was(before):
    sine = importlib.import_module("recbole.model.sequential_recommender.sine")
    torch.autograd.set_detect_anomaly(before)
    try:
        importlib.reload(sine)
        assert torch.is_anomaly_enabled() is before
    finally:
        torch.autograd.set_detect_anomaly(False)


def test_anomaly_detection_is_off_here():
    importlib.import_module("recbole.model.sequential_recommender")
    assert not torch.is_anomaly_enabled()


def train_stock(model, options):
    config, network, train_data, valid_data, test_data = prepare(model, options)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    trainer.fit(train_data, valid_data, show_progress=False)
    return trainer, test_data


def test_stock_trains_tests_and_loads_its_own_file(dense):
    result = run_recbole("BPR", "tiny", config_dict=dense)
    (file,) = glob.glob("saved/BPR-*.pth")
    config, model, _, _, _, test_data = load_data_and_model(file)
    assert isinstance(config, Config)
    assert config.model_class is BPR
    assert config["MODEL_INPUT_TYPE"] is InputType.PAIRWISE
    again = get_trainer(config["MODEL_TYPE"], config["model"])(config, model).evaluate(
        test_data, load_best_model=False
    )
    assert again == result["test_result"]


def test_stock_resumes(dense):
    trainer, _ = train_stock("BPR", dense)
    resumed, _ = train_stock("BPR", {**dense, "epochs": 0})
    resumed.resume_checkpoint(trainer.saved_model_file)
    state = torch.load(trainer.saved_model_file)
    assert resumed.start_epoch == state["epoch"] + 1
    assert torch.equal(resumed.model.user_embedding.weight, state["state_dict"]["user_embedding.weight"])


@pytest.mark.parametrize("protocol", [2, 4])
def test_neumf_starts_from_stock_files(dense, protocol):
    files = {}
    for part, other in (("mf", "mlp"), ("mlp", "mf")):
        trainer, _ = train_stock("NeuMF", {**dense, f"{other}_train": False})
        files[f"{part}_pretrain_path"] = f"{part}.pth"
        state = torch.load(trainer.saved_model_file)
        torch.save(state, f"{part}.pth", pickle_protocol=protocol)
    network = prepare("NeuMF", {**dense, "use_pretrain": True, **files})[1]
    state = torch.load(trainer.saved_model_file)["state_dict"]
    assert torch.equal(network.user_mlp_embedding.weight, state["user_mlp_embedding.weight"])


def test_stock_loads_the_file_that_recbole_wrote_without_us(dense):
    trainer, test_data = train_stock("BPR", dense)
    expected = trainer.evaluate(test_data)
    state = torch.load(trainer.saved_model_file)
    # RecBole writes protocol 4, which PyTorch's own reader refuses
    torch.save(state, "stock.pth", pickle_protocol=4)
    with pytest.raises(pickle.UnpicklingError):
        torch.load("stock.pth")
    assert trainer.evaluate(test_data, model_file="stock.pth") == expected
    assert load_data_and_model("stock.pth")[0].model_class is BPR


def test_a_model_of_ones_own_is_tested_with_its_own_file(dense):
    _, _, train_data, valid_data, test_data = prepare("BPR", dense)
    own = Config(OwnBPR, "tiny", config_dict={**dense, "embedding_size": 8})
    trainer = get_trainer(own["MODEL_TYPE"], "BPR")(own, OwnBPR(own, train_data.dataset))
    trainer.fit(train_data, valid_data, show_progress=False)
    assert trainer.evaluate(test_data)["recall@10"] >= 0
    assert torch.load(trainer.saved_model_file)["config"].model_class is OwnBPR


class Evil:
    """Reduces to a call of RecBole's Config, which evaluates the strings that it gets."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        code = "__import__('pathlib').Path('evaluated').touch()"
        return (self.name, ("BPR", "tiny", None, {"learning_rate": code}))


@pytest.mark.parametrize("called", [Config, BPR])
def test_a_file_cannot_call_what_it_names(called):
    torch.save({"config": Evil(called)}, "evil.pth")
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        torch.load("evil.pth")
    assert not os.path.exists("evaluated")


@pytest.mark.parametrize(
    "model, more",
    [
        ("EASE", {}),
        ("ItemKNN", {}),
        ("Pop", {}),
        ("LightGCN", {}),
        ("RippleNet", {"load_col": {"inter": ["user_id", "item_id"], "kg": None, "link": None}}),
        (
            "SASRecF",
            {
                "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
                "selected_features": ["class"],
                "train_neg_sample_args": None,
            },
        ),
    ],
)
def test_what_models_keep_beside_their_weights_is_loaded(dense, model, more):
    if more.get("load_col", {}).get("kg", True) is None:
        more["load_col"].update(kg=["head_id", "relation_id", "tail_id"], link=["item_id", "entity_id"])
    trainer, test_data = train_stock(model, {**dense, **more, "epochs": 1})
    assert trainer.evaluate(test_data) == trainer.evaluate(test_data, load_best_model=False)


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_load_what_the_main_process_would(dense, start):
    users = []
    for worker in (0, 1):
        train_data = prepare("BPR", {**dense, "worker": worker})[2]
        if worker:
            train_data.multiprocessing_context = start
        # the order is drawn here, the negative items are there
        users.append(torch.cat([batch["user_id"] for batch in train_data]))
    assert torch.equal(*users)
