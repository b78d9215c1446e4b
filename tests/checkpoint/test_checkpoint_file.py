import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer

from recbole_dsl import DSLError, DSLTrainer, load_data_and_model
from recbole_dsl.checkpoint.archive import damage
from recbole_dsl.checkpoint.checkpoint_file import write_checkpoint
from recbole_dsl.checkpoint.codec import plain
from recbole_dsl.checkpoint.random_state import random_state, restore_random_state
from tests.running import prepare, train


@pytest.fixture
def trainer(options):
    return train("BPR", options)[0]


def test_holds_only_the_sparse_form_as_tensors_and_plain_data(trainer):
    checkpoint = torch.load(trainer.saved_model_file, weights_only=True)
    state = checkpoint["state_dict"]
    assert set(state) == {
        f"{table}_embedding.weight.{part}"
        for table in ("user", "item")
        for part in ("values", "columns", "row_offsets")
    }
    assert sum(state[f"{t}_embedding.weight.values"].numel() for t in ("user", "item")) == trainer.sparsity.nnz
    assert checkpoint["dsl"]["density"] == 0.3


def test_load_data_and_model_gives_back_what_was_trained(trainer, options, monkeypatch):
    _, test_data = train("BPR", options)
    wanted = trainer.evaluate(test_data)
    monkeypatch.setattr(sys, "argv", ["other.py", "--embedding_size=3", "--density=0.9"])
    config, model, dataset, train_data, valid_data, test_data = load_data_and_model(trainer.saved_model_file)
    monkeypatch.setattr(sys, "argv", ["other.py"])
    assert config["density"] == 0.3 and config["model"] == "BPR" and dataset.item_num == 51
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    again = DSLTrainer(config, model)
    assert again.evaluate(test_data, load_best_model=False) == wanted
    again.fit(train_data, valid_data, show_progress=False)


@pytest.mark.parametrize("use", ["evaluate", "resume"])
def test_a_file_that_cannot_be_used_is_refused_in_one_line(trainer, options, use):
    config, model, _, _, test_data = prepare("BPR", options)
    mine = DSLTrainer(config, model)
    whole = Path(trainer.saved_model_file).read_bytes()
    files = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"not a model"}
    for name, content in files.items():
        Path(name).write_bytes(content)
    torch.save({"state_dict": {}}, "foreign")
    other, _ = train("LightGCN", options)
    wider, _ = train("BPR", {**options, "embedding_size": 9})
    stock_config, stock_model, *_ = prepare("BPR", options)
    Trainer(stock_config, stock_model)._save_checkpoint(0, saved_model_file="stock")
    cases = {
        **dict.fromkeys(files, "must be a whole checkpoint"),
        "stock": "must be a checkpoint of recbole_dsl",
        "foreign": "must be a checkpoint of recbole_dsl",
        "missing": "must be an existing file",
        other.saved_model_file: "holds LightGCN, must hold BPR",
        wider.saved_model_file: "does not fit the model",
    }
    before = {name: tensor.clone() for name, tensor in mine.model.state_dict().items()}
    for file, message in cases.items():
        with pytest.raises(DSLError, match=message) as error:
            mine.resume_checkpoint(file) if use == "resume" else mine.evaluate(test_data, model_file=file)
        assert file in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.model.state_dict().items())


def test_another_learner_is_refused(trainer, options):
    config, model, *_ = prepare("BPR", {**options, "learner": "sgd"})
    with pytest.raises(DSLError, match="learner=SGD: must be Adam"):
        DSLTrainer(config, model).resume_checkpoint(trainer.saved_model_file)


def content(path):
    assert damage(path) is None
    return torch.load(path, weights_only=True)


def test_a_failed_write_leaves_the_previous_file_and_nothing_else():
    write_checkpoint("model.pth", {"x": torch.ones(3)})
    with pytest.raises(Exception):  # noqa: B017
        write_checkpoint("model.pth", {"x": lambda: None})
    assert os.listdir() == ["model.pth"]
    assert content("model.pth")["x"].tolist() == [1, 1, 1]


def test_a_kill_while_writing_leaves_the_previous_file_whole_and_nothing_else():
    write_checkpoint("model.pth", {"x": torch.ones(3)})
    script = """
        import torch
        from recbole_dsl.checkpoint.checkpoint_file import write_checkpoint
        print("writing", flush=True)
        while True:
            write_checkpoint("model.pth", {"x": torch.zeros(2_000_000)})
    """
    for delay in (0.0, 0.005, 0.01, 0.02):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
        process.stdout.readline()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        assert content("model.pth")["x"].numel() in (3, 2_000_000)
        assert os.listdir() == ["model.pth"]


def test_plain_takes_tensors_and_plain_data_only():
    value = {"a": (np.float64(1.5), np.int64(2), True, None), "b": [torch.ones(1)]}
    made = plain(value)
    assert made["a"] == [1.5, 2, True, None] and type(made["a"][0]) is float and type(made["a"][1]) is int
    with pytest.raises(TypeError):
        plain({"f": print})


def test_random_state_restores_every_generator():
    import random

    loader = torch.Generator().manual_seed(3)

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item(), torch.rand(1, generator=loader).item()

    state = random_state([loader])
    first = draw()
    restore_random_state(state, [loader])
    assert draw() == first
