"""What the console shows of a training, and that the log has the rest."""

import glob
import io
import logging
import os
import sys
import threading
import warnings
from pathlib import Path

import pytest

from recbole_dsl import cli, run_recbole_dsl
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


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.WARNING])
def test_beside_a_programs_log_the_file_is_whole_and_nothing_else_changes(options, monkeypatch, level):
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", level)
    monkeypatch.setattr(sys, "argv", ["host.py", "--workers=4", "--epochs=99", "-f", "kernel.json"])
    run_recbole_dsl("BPR", "tiny", config_dict=options)
    assert root.handlers == [handler] and root.level == level and handler.filters == []
    (file,) = glob.glob("log/BPR/*.log")
    log = Path(file).read_text()
    assert "test result" in log and "epoch 3 training" in log and "epoch 4 " not in log
    assert ("test result" in stream.getvalue()) == (level <= logging.INFO)
    # which earlier versions read
    assert "--epochs on the command line: not read" in stream.getvalue()


def test_a_program_without_streams_trains_and_logs(options, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    run_recbole_dsl("BPR", "tiny", config_dict={**options, "show_progress": True})
    assert "test result" in Path(*glob.glob("log/BPR/*.log")).read_text()
    assert logging.getLogger().handlers == []


def test_the_command_runs_without_streams_and_in_a_thread(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    found = []

    def work():
        with pytest.raises(SystemExit) as exit:
            cli.main(["train", "--density=0"])
        found.append(exit.value.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [2]
