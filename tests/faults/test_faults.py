"""A sample of the faults; ``python -m tests.faults`` runs all of them."""

import os
import signal
import time

import pytest

from recbole_dsl.checkpoint.archive import damage
from tests.faults import bad_inputs, good_inputs, hostile_files, hostile_headers, kills, nights
from tests.faults.command import train
from tests.faults.forks import wait

# a prime, so that the sample meets every kind
BAD = bad_inputs.CASES[::17]
GOOD = [
    case
    for case in good_inputs.CASES
    if case.name.startswith(("CRLF", "quotes around ids", "an id is empty", "a last line without an end"))
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_what_cannot_be_used_is_refused_in_one_line_and_changes_no_file(case, tmp_path):
    assert bad_inputs.problem(case, train(tmp_path / "run", case.arguments, case.files)) is None


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_what_looks_odd_and_is_right_is_trained(case, tmp_path):
    assert good_inputs.problem(train(tmp_path / "run", case.arguments, case.files)) is None


HOSTILE = [
    *hostile_files.CASES[::37],
    *(case for case in hostile_files.CASES if case.name.startswith(("option: a dataset", "KD_DAGFM", "LDiffRec"))),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return hostile_files.make_base(folder), folder


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_a_hostile_file_runs_nothing_and_changes_nothing(case, base):
    assert hostile_files.problem(case, *base) is None


OVER = "as large as is allowed somewhere"
ASKING = {
    "GRU4Rec": ["num_layers is huge", "num_layers is large", f"MAX_ITEM_LIST_LENGTH is {OVER}"],
    "SASRec": ["n_layers is huge", "n_layers is large", "hidden_act is code", "no iid_field"],
    "SRGNN": ["step is huge", "step is large", "loss_type is code"],
    "DiffRec": ["steps is large", "dims_dnn is huge in a list", "dims_dnn is many in a list"],
    "KGCN": [f"neighbor_sample_size is {OVER}", "n_iter is large"],
}


@pytest.mark.parametrize("model", ASKING)
def test_a_header_that_asks_for_more_than_the_file_holds_takes_little(model, tmp_path):
    network = hostile_headers.exported(model, tmp_path)
    found = dict(hostile_headers.headers(network))
    for words in ASKING[model]:
        assert hostile_headers.problem(network, found[words], tmp_path) is None, words


def test_a_run_that_is_killed_ends_as_one_that_was_not():
    rows = list(kills.kill(kills.Run("BPR", (*kills.RUNS[0].options[:1], "--epochs=12"), 4)))
    assert [row for row in rows if row.problem] == []


def test_nights_that_are_killed_end_as_nights_that_were_not():
    rows = list(nights.kill(2, users=40, items=30, a_day=300))
    assert len(rows) == 2 and [row for row in rows if row.problem] == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_what_is_asked_to_end_says_how_to_go_on(number, code, tmp_path):
    import recbole_dsl.training.quick_start  # noqa: F401

    kills.write_data(tmp_path)
    folder = tmp_path / "run"
    child = kills.begin(
        kills.Run("BPR", (kills.RUNS[0].options[0], "--epochs=9999", "--stopping_step=9999"), 0),
        folder,
        resume=False,
    )
    while not list(folder.glob("saved/*.pth")):
        time.sleep(0.05)
    os.kill(child, number)
    assert wait(child) == code, (folder / "log.txt").read_text()[-2000:]
    (last,) = folder.glob("saved/*.last")
    text = (folder / "log.txt").read_text()
    assert text.endswith(f"interrupted; to go on: recbole-dsl train --resume=saved/{last.name}\n")
    assert "Traceback" not in text and damage(str(last)) is None


def test_every_case_has_a_name_of_its_own():
    for cases in (bad_inputs.CASES, good_inputs.CASES, hostile_files.CASES):
        assert len({case.name for case in cases}) == len(cases)
