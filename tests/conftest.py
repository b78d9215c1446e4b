import logging
import sys

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)
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


@pytest.fixture(scope="session")
def data_path(tmp_path_factory):
    """A folder with the dataset "tiny": 40 users, 50 items, tastes in two groups."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = ["user_id:token\titem_id:token"]
    for user in range(40):
        taste = np.where(np.arange(50) % 2 == user % 2, 4.0, 1.0)
        items = random.choice(50, size=15, replace=False, p=taste / taste.sum())
        lines += [f"u{user}\ti{item}" for item in items]
    (folder / "tiny.inter").write_text("\n".join(lines) + "\n")
    return str(folder.parent)


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
