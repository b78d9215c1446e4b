import configparser
import glob
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from recbole.quick_start import run_recbole

import recbole_dsl
from recbole_dsl import DSLError, command_line_options, run_recbole_dsl
from recbole_dsl.options import recbole_models
from recbole_dsl.options.recbole_models import FACTS, Facts
from recbole_dsl.training import configs
from recbole_dsl.training.trainer import DSLMixin
from tests.running import metrics


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_density_one_gives_the_metrics_of_stock_recbole(model):
    options = {"epochs": 3, "show_progress": False, "metric_decimal_place": 4}
    stock = run_recbole(model, "ml-100k", config_dict=dict(options), saved=False)
    ours = run_recbole_dsl(
        model, "ml-100k", config_dict={**options, "density": 1, "update_interval": 20}, saved=False
    )
    assert metrics(ours) == stock and ours["model_file"] is None
    assert stock["test_result"]["recall@10"] > 0.005


def test_returns_and_saves_what_run_recbole_does(options):
    result = run_recbole_dsl(model="BPR", dataset="tiny", config_dict=options)
    names = {"best_valid_score", "valid_score_bigger", "best_valid_result", "test_result"}
    assert set(metrics(result)) == names
    (file,) = glob.glob("saved/BPR-*.pth")
    assert result["model_file"] == os.path.abspath(file)
    assert result["cost"].checkpoint_bytes.sparse == os.path.getsize(file)
    # the newest file is the last by name
    assert re.fullmatch(r"saved/BPR-\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{6}\.pth", file)


def test_command_line_ranks_above_dict_above_files_above_defaults(options, monkeypatch):
    Path("a.yaml").write_text("density: 0.5\nupdate_ratio: 0.4\nlearning_rate: 0.5\nprune: set\n")
    monkeypatch.setattr(sys, "argv", ["script.py", "--density=0.2", "--learning_rate=0.02"])
    options = {**options, "density": 0.3, "update_ratio": 0.1}
    config = configs.build_config("BPR", "tiny", ["a.yaml"], {**options, **command_line_options()})
    values = [config[n] for n in ("density", "learning_rate", "update_ratio", "prune", "schedule")]
    assert values == [0.2, 0.02, 0.1, "set", "cosine"]
    assert options["density"] == 0.3, "the caller's dict is left alone"


def test_wandb_gets_the_updates(options, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged = []
    log = wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda run, data, **k: (logged.append(data), log(run, data, **k))
    )
    run_recbole_dsl("BPR", "tiny", config_dict={**options, "log_wandb": True})
    wandb.finish()
    updates = [data for data in logged if "dsl/exploration_rate" in data]
    assert updates and updates[0]["topology_step"] == 3
    assert "dsl/density/user_embedding.weight" in updates[0]


@pytest.mark.parametrize(
    "model, dataset, change, message",
    [
        ("BPR", "nowhere", {}, "^dataset=nowhere: must be a folder of atomic files at "),
        (
            "BPR",
            "tiny",
            {"benchmark_filename": ["train", "valid", "test"]},
            "^dataset=tiny: tiny.train.inter: must be there",
        ),
        ("Pop", "tiny", {}, "^model=Pop: must be a model with weights trained by gradients"),
        ("LightGNC", "tiny", {}, "^model=LightGNC: did you mean LightGCN?"),
        ("BPR", "tiny", {"denisty": 0.5}, "^unknown option denisty: did you mean density?"),
        ("BPR", "tiny", {"density": 1e-6}, "^density=1e-06 leaves user_embedding.weight no weight"),
        ("BPR", "tiny", {"targets": "table"}, "^targets=table: must match one of user_embedding.weight"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_written(options, model, dataset, change, message):
    with pytest.raises(DSLError, match=message):
        run_recbole_dsl(model, dataset, config_dict={**options, **change})
    assert os.listdir() == []


@pytest.mark.parametrize(
    "model",
    "Pop Random ItemKNN AsymKNN EASE SLIMElastic NCEPLRec ADMMSLIM XGBoost LightGBM".split(),
)
def test_models_without_gradients_are_refused_before_any_data_is_read(model):
    with pytest.raises(DSLError, match=f"^model={model}: must be a model with weights trained by gradients"):
        run_recbole_dsl(model, "nowhere")
    assert os.listdir() == []


def test_a_model_whose_package_is_missing_is_refused_before_any_data_is_read(monkeypatch):
    monkeypatch.setitem(recbole_models.FACTS, "BPR", Facts(package="a_package_that_nobody_has"))
    with pytest.raises(DSLError, match=r"^model=BPR: must have the package a_package_that_nobody_has"):
        run_recbole_dsl("BPR", "nowhere")
    assert os.listdir() == []


@pytest.mark.parametrize("model", [name for name, facts in FACTS.items() if facts.package])
def test_the_extra_is_named_for_a_missing_package_where_it_installs_that(model, monkeypatch):
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    lines = setup["options.extras_require"]["models"].splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    installed = {one.name.removesuffix("-cpu") for one in wanted if not one.marker or one.marker.evaluate()}
    package = FACTS[model].package.replace("_", "-")
    monkeypatch.setattr(recbole_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DSLError, match=f"^model={model}: must have the package ") as error:
        recbole_models.refuse_without_package(model)
    assert str(error.value).endswith("which our extra [models] installs") == (package in installed)


@pytest.mark.parametrize(
    "content, message",
    [(None, "must be an existing YAML file"), ("a: [", "must be YAML")],
    ids=["missing", "broken"],
)
def test_a_bad_config_file_is_named(options, content, message):
    if content is not None:
        Path("a.yaml").write_text(content)
    with pytest.raises(DSLError, match=f"^config_files=a.yaml: {message}"):
        run_recbole_dsl("BPR", "tiny", ["a.yaml"], options)


def test_registered_models_train_sparse_in_unchanged_scripts(options, monkeypatch):
    # RecBole's evaluate cannot read any checkpoint that it saved itself on this PyTorch; ours can
    import recbole.trainer

    usual = vars(recbole.trainer).get("LightGCNTrainer"), recbole.trainer.RecVAETrainer
    recbole_dsl.register("LightGCN", "RecVAE", density=0.2, update_ratio=0.25)
    try:
        trainers = []
        fit = DSLMixin.fit
        monkeypatch.setattr(DSLMixin, "fit", lambda self, *a, **k: (trainers.append(self), fit(self, *a, **k))[1])
        run_recbole(model="LightGCN", dataset="tiny", config_dict=dict(options))
        assert trainers[0].dsl_config.density == 0.3, "the Config ranks above what was registered"
        assert trainers[0].dsl_config.update_ratio == 0.25
        del options["density"]
        assert run_recbole_dsl("LightGCN", "tiny", config_dict=options)["test_result"]
        assert trainers[1].dsl_config.density == 0.2
        assert issubclass(recbole.trainer.RecVAETrainer, usual[1])
    finally:
        recbole_dsl.unregister()
    assert (vars(recbole.trainer).get("LightGCNTrainer"), recbole.trainer.RecVAETrainer) == usual


def test_all_models_are_registered_when_none_is_named():
    import recbole.trainer

    before = dict(vars(recbole.trainer))
    recbole_dsl.register()
    try:
        for name in ("BPR", "SASRec", "KGAT", "DeepFM", "MultiVAE"):
            assert issubclass(getattr(recbole.trainer, f"{name}Trainer"), DSLMixin)
        assert issubclass(recbole.trainer.KGATTrainer, before["KGATTrainer"])
        assert issubclass(recbole.trainer.CKETrainer, before["KGTrainer"])
        assert not hasattr(recbole.trainer, "PopTrainer")
    finally:
        recbole_dsl.unregister()
    assert dict(vars(recbole.trainer)) == before


@pytest.mark.parametrize(
    "models, options, message",
    [
        (["LightGNC"], {}, "^model=LightGNC: did you mean LightGCN?"),
        (["BPR", "Pop"], {}, "^model=Pop: must be a RecBole model"),
        (["BPR"], {"denisty": 1}, "^unknown option denisty"),
        (["BPR"], {"density": 3}, "^density=3"),
    ],
)
def test_a_wrong_registration_registers_nothing(models, options, message):
    import recbole.trainer

    with pytest.raises(DSLError, match=message):
        recbole_dsl.register(*models, **options)
    assert not hasattr(recbole.trainer, "BPRTrainer")


def test_recboles_tuner_takes_the_objective(options):
    from recbole.trainer import HyperTuning

    Path("base.yaml").write_text(yaml.safe_dump({**options, "model": "BPR", "dataset": "tiny"}))
    Path("params.txt").write_text("density choice [0.2,0.6]\nupdate_interval choice [4]\n")
    tuner = HyperTuning(
        recbole_dsl.objective_function,
        algo="exhaustive",
        max_evals=2,
        params_file="params.txt",
        fixed_config_file_list=["base.yaml"],
    )
    tuner.run()
    assert set(tuner.params2result) == {"density:0.2, update_interval:4", "density:0.6, update_interval:4"}
    tuner.export_result("tuned.txt")
    assert "density:" in Path("tuned.txt").read_text()


@pytest.mark.parametrize("place", ["saved", "log", "log_tensorboard"])
def test_a_place_that_cannot_be_written_is_one_line_before_training(options, place, caplog):
    caplog.set_level("INFO")
    Path(place).write_text("")
    with pytest.raises(DSLError, match=rf"{place}\S*: must be a ") as error:
        run_recbole_dsl("BPR", "tiny", config_dict=options)
    assert "\n" not in str(error.value) and "epoch 0 training" not in caplog.text
    assert Path(place).read_text() == ""
