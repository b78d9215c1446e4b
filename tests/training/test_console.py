"""What the console shows of a training, and that the log has the rest."""

import io
import logging
import os
import warnings

import pytest

from recbole_dsl import run_recbole_dsl
from recbole_dsl.errors import quieten
from recbole_dsl.training.console import make_brief, say


@pytest.fixture
def shown(monkeypatch):
    """What a brief console has shown."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    make_brief(handler)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    return stream.getvalue


def test_a_brief_console_shows_what_is_said_and_what_is_wrong(shown):
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().info("an option")
    logging.getLogger().warning("of another package")
    logging.getLogger().error("it failed")
    say("epoch 0")
    assert shown() == "error: it failed\nepoch 0\n"


def test_nothing_is_said_where_a_program_has_its_own_log(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(stream)])
    say("epoch 0")
    assert stream.getvalue() == ""


def test_warnings_of_other_packages_are_not_shown(recwarn):
    with warnings.catch_warnings(record=True) as caught:
        quieten()
        warnings.warn_explicit("theirs", UserWarning, "file.py", 1, module="torch.nn")
        warnings.warn_explicit("ours", UserWarning, "file.py", 1, module="recbole_dsl.cli")
    assert [str(one.message) for one in caught] == ["ours"]


def test_each_run_of_a_process_has_its_own_console_and_log(options, capfd, monkeypatch):
    # pytest's own
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    shown = []
    for number, verbose in enumerate((False, True, False), start=1):
        run_recbole_dsl("BPR", "tiny", config_dict={**options, "verbose": verbose})
        said = capfd.readouterr().err
        shown.append((said.startswith("data    "), "show_progress" in said, "FutureWarning" in said))
        assert sum(len(files) for _, _, files in os.walk("log")) == number
    assert shown == [(True, False, False), (False, True, False), (True, False, False)]


def test_the_log_of_a_program_stays(options, monkeypatch):
    handler = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    run_recbole_dsl("BPR", "tiny", config_dict=options)
    assert logging.getLogger().handlers == [handler]
