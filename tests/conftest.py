import logging
import os
import sys

import pytest
import torch
from hypothesis import settings

from tests.tiny import write_tiny

# the models of the tests are too small for a second thread to be worth its start
torch.set_num_threads(1)
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def clean_run(tmp_path, monkeypatch):
    """Run in an empty directory, with no command line and no log handlers of another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py"])
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in [h for h in root.handlers if h not in before]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep nothing of a test among the user's files."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_path(tmp_path_factory):
    """A folder with the generated dataset "tiny"."""
    folder = tmp_path_factory.mktemp("data")
    write_tiny(folder / "tiny")
    return str(folder)


@pytest.fixture
def options(data_path):
    """Options of a run on "tiny" that takes a second."""
    return {
        "data_path": data_path,
        "load_col": {"inter": ["user_id", "item_id"]},
        "epochs": 4,
        "train_batch_size": 128,
        "embedding_size": 8,
        "learning_rate": 0.01,
        "density": 0.3,
        "update_interval": 3,
        "show_progress": False,
    }
