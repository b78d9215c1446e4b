"""A run that was stopped and goes on is, to the bit, the run that was never stopped."""

import argparse
import glob
import os
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_dsl import DSLError, DSLTrainer, run_recbole_dsl
from recbole_dsl.checkpoint.archive import damage
from tests.running import metrics, prepare

# an interval of 7 steps does not divide an epoch, so that epochs end in the middle of windows of summed gradients
WINDOW = {"epochs": 5, "update_interval": 7, "grow_window": 6, "stop_fraction": 1.0, "stopping_step": 9}


class Stopped(BaseException):
    pass


def stop_after(monkeypatch, epoch):
    """Stop training where a process is killed: when ``epoch`` has been trained, before it is evaluated."""
    usual = DSLTrainer._valid_epoch
    count = [0]

    def valid_epoch(self, *args, **kwargs):
        count[0] += 1
        if count[0] == epoch:
            raise Stopped
        return usual(self, *args, **kwargs)

    monkeypatch.setattr("recbole_dsl.training.trainer.DSLMixin._valid_epoch", valid_epoch)


def last(folder):
    (file,) = Path(folder).glob("*.last")
    return str(file)


def content(file):
    assert damage(file) is None
    return torch.load(file, weights_only=True)


def assert_equal(one, other, where=""):
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            # two runs have two names, and take their time
            if key not in ("run", "checkpoint_dir", "train_seconds", "valid_seconds"):
                assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other)):
            assert_equal(*pair, f"{where}.{i}")
    else:
        assert one == other or (one != one and other != other), where


def run_twice(monkeypatch, model, options, stop=3):
    """The metrics of a run in "whole", and of one in "parts" that was stopped and went on."""
    whole = run_recbole_dsl(model, "tiny", config_dict={**options, "checkpoint_dir": "whole"})
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        with pytest.raises(Stopped):
            run_recbole_dsl(model, "tiny", config_dict={**options, "checkpoint_dir": "parts"})
    assert content(last("parts"))["epoch"] == stop - 2
    parts = run_recbole_dsl(config_dict={"resume": last("parts")})
    return metrics(whole), metrics(parts)


@pytest.mark.parametrize(
    "model, changes",
    [
        *(("BPR", {"grow": grow}) for grow in ("gradient", "momentum", "random", "random_unfired")),
        ("BPR", {"grow_memory": 0.05, "learner": "sparse_adam"}),
        ("BPR", {"budget": "global", "prune": "taylor", "learner": "rmsprop"}),
        ("LightGCN", {}),
        ("SGL", {}),
        # counts its steps in an attribute
        ("MultiVAE", {"update_interval": 2, "grow_window": 2, "train_batch_size": 16}),
        # two optimizers that take turns
        (
            "RecVAE",
            {
                "update_interval": 2,
                "grow_window": 2,
                "train_batch_size": 16,
                "hidden_dimension": 32,
                "latent_dimension": 8,
            },
        ),
        (
            "SASRec",
            {"load_col": None, "loss_type": "BPR", "n_layers": 1, "n_heads": 1, "hidden_size": 8, "inner_size": 8},
        ),
        ("CKE", {"load_col": None, "kg_embedding_size": 8}),
        ("KGCN", {"load_col": None}),
        ("FM", {"load_col": {"inter": ["user_id", "item_id", "rating"]}, "threshold": {"rating": 4}}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value.values()))[:30],
)
def test_a_run_that_goes_on_ends_as_one_that_never_stopped(monkeypatch, options, model, changes):
    whole, parts = run_twice(monkeypatch, model, {**options, **WINDOW, **changes})
    assert parts == whole
    for suffix in ("last", "pth"):
        one, other = (content(glob.glob(f"{folder}/*.{suffix}")[0]) for folder in ("whole", "parts"))
        assert_equal(one, other)


def test_a_finished_run_has_nothing_left_to_do_and_more_epochs_go_on(options, caplog):
    caplog.set_level("INFO")
    options = {**options, **WINDOW, "epochs": 3, "update_interval": 4}
    short = run_recbole_dsl("BPR", "tiny", config_dict=options)
    for file in map(Path, glob.glob("saved/*")):
        # as earlier versions named them
        file.rename(f"saved/BPR-Nov-28-2026_15-20-55-6c02e1{file.suffix}")
    before = {file: Path(file).read_bytes() for file in glob.glob("saved/*")}
    again = run_recbole_dsl("BPR", "tiny", config_dict={**options, "resume": True})
    assert metrics(again) == metrics(short) and again["model_file"] == os.path.abspath(*glob.glob("saved/*.pth"))
    assert "nothing left to do" in caplog.text
    assert before == {file: Path(file).read_bytes() for file in glob.glob("saved/*")}
    longer = run_recbole_dsl("BPR", "tiny", config_dict={**options, "epochs": 5, "resume": True})
    assert content(last("saved"))["epoch"] == 4 and len(glob.glob("saved/*")) == 2
    # the topology's schedule spans the training: only with a fixed topology is it as if it had been longer before
    fixed = {**options, "topology": "fixed", "checkpoint_dir": "fixed"}
    run_recbole_dsl("BPR", "tiny", config_dict=fixed)
    longer = run_recbole_dsl(config_dict={"resume": last("fixed"), "epochs": 5})
    at_once = run_recbole_dsl("BPR", "tiny", config_dict={**fixed, "epochs": 5, "checkpoint_dir": "at once"})
    assert metrics(longer) == metrics(at_once)


def test_an_early_stop_comes_where_it_would_have_come(monkeypatch, options):
    options = {**options, **WINDOW, "epochs": 30, "stopping_step": 1, "learning_rate": 0.5}
    whole, parts = run_twice(monkeypatch, "BPR", options)
    assert parts == whole
    epochs = [content(last(folder))["epoch"] for folder in ("whole", "parts")]
    assert epochs[0] == epochs[1] < 29
    assert metrics(run_recbole_dsl(config_dict={"resume": last("parts"), "epochs": 40})) == parts


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rate": 0.5}, "^learning_rate=0.5: must be 0.01, which saved/.*last was trained with"),
        ({"density": 0.5}, "^density=0.5: must be 0.3, which "),
        ({"model": "LightGCN"}, "^model=LightGCN: must be BPR, as in saved/.*last"),
        ({"resume": "nowhere.last"}, "^resume=nowhere.last: must be an existing file"),
    ],
)
def test_another_run_is_not_resumed(options, changes, message):
    run_recbole_dsl("BPR", "tiny", config_dict={**options, "epochs": 1})
    before = {file: Path(file).read_bytes() for file in glob.glob("saved/*")}
    changes = {"resume": last("saved"), **changes}
    with pytest.raises(DSLError, match=message):
        run_recbole_dsl(changes.pop("model", None), config_dict=changes)
    assert before == {file: Path(file).read_bytes() for file in glob.glob("saved/*")}


def test_where_there_is_nothing_to_resume_the_run_begins_anew(options, caplog):
    run_recbole_dsl("BPR", "tiny", config_dict={**options, "epochs": 1, "resume": True})
    assert "nothing to resume in saved" in caplog.text and len(glob.glob("saved/*.pth")) == 1


def test_without_save_last_there_is_the_best_epoch_only(options):
    run_recbole_dsl("BPR", "tiny", config_dict={**options, "save_last": False})
    assert [Path(file).suffix for file in os.listdir("saved")] == [".pth"]


def test_two_runs_of_one_second_have_files_of_their_own(options, monkeypatch):
    now = SimpleNamespace(now=lambda: datetime(2026, 11, 28))
    monkeypatch.setattr("recbole_dsl.training.run_files.datetime", now)
    trainers = [DSLTrainer(*prepare("BPR", options)[:2]) for _ in range(2)]
    names = {name for trainer in trainers for name in (trainer.saved_model_file, trainer.last_model_file)}
    assert len(names) == 4


def test_a_file_that_another_run_has_written_over_is_not_tested(options):
    config, model, train_data, valid_data, test_data = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    trainer.fit(train_data, valid_data)
    other = run_recbole_dsl(
        "BPR", "tiny", config_dict={**options, "learning_rate": 0.3, "checkpoint_dir": "other"}
    )
    (file,) = glob.glob("other/*.pth")
    os.replace(file, trainer.saved_model_file)
    with pytest.raises(DSLError, match="another run has written it since"):
        trainer.evaluate(test_data)
    assert other and trainer.evaluate(test_data, model_file=trainer.saved_model_file) == other["test_result"]


class Accumulating(DSLTrainer):
    """Takes an optimizer step after every fourth batch."""

    def _train_epoch(self, train_data, epoch_idx, loss_func=None, show_progress=False):
        self.model.train()
        total = 0.0
        for number, batch in enumerate(train_data):
            loss = self.model.calculate_loss(batch.to(self.device))
            loss.backward()
            total += loss.item()
            if number % 4 == 3:
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.counter = getattr(self, "counter", 0) + 1
        return total


def test_accumulated_gradients_do_not_keep_the_topology_from_settling(options):
    options = {**options, "epochs": 20, "train_batch_size": 16, "update_interval": None, "stopping_step": 100}
    config, model, train_data, valid_data, _ = prepare("BPR", options)
    trainer = Accumulating(config, model)
    trainer.fit(train_data, valid_data)
    steps = trainer.topology.step
    assert steps < 20 * len(train_data) / 3
    assert 0.6 * steps < trainer.topology_updates[-1].step < 0.8 * steps
    assert 20 < len(trainer.topology_updates) < 32


class Scheduled(DSLTrainer):
    """Has an optimizer and a learning-rate scheduler of its own, made while the optimizer is built."""

    def _build_optimizer(self, **kwargs):
        optimizer = super()._build_optimizer(**kwargs)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return optimizer

    def _train_epoch(self, *args, **kwargs):
        loss = super()._train_epoch(*args, **kwargs)
        self.scheduler.step()
        return loss


def test_a_scheduler_acts_on_the_optimizer_that_trains_and_goes_on(options):
    def trainer(epochs):
        config, model, *data, _ = prepare("BPR", {**options, "epochs": epochs})
        return Scheduled(config, model), data

    whole, data = trainer(4)
    whole.fit(*data)
    assert whole.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 16)
    first, data = trainer(2)
    # the schedule of the topology is that of four epochs
    first.epochs = 4
    first.topology.total_steps = 4 * len(data[0])
    first.epochs = 2
    first.fit(*data)
    second, data = trainer(4)
    second.resume_checkpoint(first.last_model_file)
    second.fit(*data)
    assert second.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 16)


def test_the_topology_follows_an_optimizer_that_is_assigned(options):
    config, model, train_data, valid_data, _ = prepare("BPR", options)
    trainer = DSLTrainer(config, model)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer.fit(train_data, valid_data)
    assert trainer.topology.step == 4 * len(train_data) and trainer.topology_updates


def test_an_optimizer_of_the_dense_weights_is_refused(options):
    config, model, *_ = prepare("BPR", options)
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = DSLTrainer(config, model)
    with pytest.raises(DSLError, match=r"^optimizer=SGD: trains user_embedding.weight as it was before"):
        trainer.optimizer = early
    with pytest.raises(DSLError, match=r"^optimizer=Namespace: must be a torch.optim.Optimizer"):
        trainer.optimizer = argparse.Namespace()
