"""Searches by Ray Tune, on this machine: a worker that is killed, ASHA, and a search that goes on."""

import json
import os
import re
import signal
from contextlib import chdir
from pathlib import Path

import pytest

from recbole_dsl import DSLError, load_data_and_model, tune_objective
from recbole_dsl.compat.for_ray import run_classes
from recbole_dsl.training.trainer import DSLMixin
from tests.tuning.searches import search, table

ray = pytest.importorskip("ray", reason="ray is not installed")
tune = pytest.importorskip("ray.tune", reason="ray[tune] is not installed")
ASHAScheduler = pytest.importorskip("ray.tune.schedulers").ASHAScheduler

# an update every 3 steps, with windows of summed gradients that an epoch ends in the midst of
WINDOW = {"epochs": 4, "update_interval": 7, "grow_window": 6, "stop_fraction": 1.0}


@pytest.fixture(scope="module", autouse=True)
def local_ray(tmp_path_factory):
    """A Ray of two CPUs, without GPUs, started where a file more.yaml is."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "more.yaml").write_text("density: 0.3\n")
    with chdir(folder):
        # workers import this file too, wherever they start
        environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}}
        ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


def killed_once(config):
    """A trial of a script of one's own, whose worker is killed once, before the evaluation of the third epoch."""
    usual = DSLMixin._valid_epoch

    def valid_epoch(self, *args, **kwargs):
        with open(config["log"], "a") as log:
            log.write(f"{self._epoch}\n")
        if config["kill"] and self._epoch == 2 and Path(config["log"]).read_text().count("2\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, *args, **kwargs)

    DSLMixin._valid_epoch = valid_epoch
    tune_objective(config["options"], config_file_list=["more.yaml"])


def test_a_trial_whose_worker_is_killed_ends_as_if_it_were_not(options, tmp_path):
    shared = {**options, **WINDOW, "model": "BPR", "dataset": "tiny"}
    del shared["density"]
    trials = [{"options": shared, "kill": kill, "log": str(tmp_path / f"{kill}.log")} for kill in (False, True)]
    run_config, failure_config, _ = run_classes()
    tuner = tune.Tuner(
        tune.with_resources(lambda config: killed_once(config["trial"]), {"cpu": 1}),
        param_space={"trial": tune.grid_search(trials)},
        tune_config=tune.TuneConfig(
            metric="best_valid_score",
            mode="max",
            scheduler=ASHAScheduler(max_t=4, grace_period=4),
        ),
        run_config=run_config(
            name="kills",
            storage_path=str(tmp_path / "ray"),
            failure_config=failure_config(max_failures=1),
            verbose=0,
        ),
    )
    whole, killed = sorted(tuner.fit(), key=lambda result: result.config["trial"]["kill"])
    assert (tmp_path / "True.log").read_text().split() == ["0", "1", "2", "2", "3"]
    assert (tmp_path / "False.log").read_text().split() == ["0", "1", "2", "3"]
    own = ("recall@10", "valid_score", "best_valid_score", "best_valid_result", "epoch", "is_last")
    assert {name: whole.metrics[name] for name in own} == {name: killed.metrics[name] for name in own}
    assert whole.metrics["is_last"] and whole.metrics["training_iteration"] == 4
    # each has a model of its own, in its own folder, and they are the same
    models = []
    for result in (whole, killed):
        with result.checkpoint.as_directory() as folder:
            models.append(load_data_and_model(os.path.join(folder, result.metrics["model_file"]))[1].state_dict())
    assert all(models[0][name].equal(models[1][name]) for name in models[0])
    assert len({result.metrics["model_file"] for result in (whole, killed)}) == 2
    assert not Path("saved").exists()


def test_the_command_stops_trials_early_and_goes_on_where_it_was(options):
    # the second trial cannot be better than the first: nothing is learned
    lines = "learning_rate choice [0.05, 0.0]\n"
    found = search({**options, "epochs": 4}, lines, output="o", engine="ray", scheduler="asha", trial_cpus=2)
    rows = table("o")
    assert [row["trial"] for row in rows] == [1, 2]
    assert found.best.score == max(row["score"] for row in rows)
    for row in rows:
        assert row["file"].startswith(f"ray/{row['trial']}/checkpoint_")
        assert load_data_and_model(f"o/{row['file']}")[0]["learning_rate"] == row["options"]["learning_rate"]
        assert (row["status"] == "stopped") == (row["epochs"] < 4)
    assert Path("o/best.pth").read_bytes() == Path(f"o/{found.best.file}").read_bytes()
    assert json.loads(Path("o/best.json").read_text())["test"] == found.test_result
    # what Tuner.restore finds is all done, and none of it again
    before = Path("o/trials.jsonl").read_bytes()
    assert search({**options, "epochs": 4}, lines, output="o", engine="ray", scheduler="asha") == found
    assert Path("o/trials.jsonl").read_bytes() == before


def test_what_ray_has_not_is_refused_before_anything_is_written(options):
    for name in ("trial_cpus", "trial_gpus"):
        with pytest.raises(DSLError, match=f"^{name}=64: must be at most [02], which is all that Ray has"):
            search(options, "learning_rate choice [0.05]\n", output="o", engine="ray", **{name: 64})
    assert not Path("o").exists()


def test_outside_of_a_trial_there_is_nothing_to_report_to(options):
    with pytest.raises(DSLError, match=r"^tune_objective: must be run by Ray Tune"):
        tune_objective({**options, "model": "BPR", "dataset": "tiny"})
    assert not os.listdir()


@pytest.mark.by_hand
def test_the_script_of_the_documentation_runs(monkeypatch, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "tune.md").read_text()
    (script,) = re.findall(r"^```py\n(.*?)^```", page, flags=re.S | re.M)
    shorter = script.replace('"dataset": "ml-100k",', '"dataset": "ml-100k", "epochs": 1,')
    assert shorter != script
    # Ray's own results lie there
    monkeypatch.setenv("HOME", str(tmp_path))
    found = {}
    exec(compile(shorter, "tune.md", "exec"), found)
    assert found["best"].metrics["best_valid_result"] and found["best"].config["density"] in (0.1, 0.2)
