"""``recbole-dsl recommend``: what it writes, and what it says about what it cannot do."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recbole_dsl.cli import main
from recbole_dsl.serving import Recommender
from tests.serving.artifacts import make

MADE = make()


@pytest.fixture
def recommender():
    return Recommender.load(MADE.write())


def printed(capfdbinary, *arguments):
    main(["recommend", "model.rdsl", *arguments])
    out, err = capfdbinary.readouterr()
    assert err == b""
    return out.decode()


def refused(capfd, *arguments):
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    out, err = capfd.readouterr()
    assert exit.value.code == 2 and out == "" and err.count("\n") == 1
    return err


def rows(text, of="user"):
    return [(row[of], int(row["rank"]), row["item"], np.float32(row["score"])) for row in csv.DictReader(text)]


def expected(tokens, items, scores):
    return [
        (token, rank, item, score)
        for token, row, of_row in zip(tokens, items, scores)
        for rank, (item, score) in enumerate(zip(row, of_row), 1)
        if item is not None
    ]


def test_it_prints_what_the_recommender_gives(capfdbinary, recommender):
    wanted = expected(["u1", "u11", "u2"], *recommender.recommend(["u1", "u11", "u2"], 4))
    assert rows(printed(capfdbinary, "--users=u1,u11,u2", "--k=4").splitlines()) == wanted
    Path("users.txt").write_bytes("\ufeffu1\r\nu11\n\nu2".encode())
    assert rows(printed(capfdbinary, "--users_file=users.txt", "--k=4").splitlines()) == wanted
    out = printed(capfdbinary, "--users=u1", "--k=3", "--items=i1,i2,i3", "--exclude=i2", "--filter_seen=none")
    one = recommender.recommend(["u1"], 3, items=["i1", "i3"], filter_seen="none")
    assert rows(out.splitlines()) == expected(["u1"], *one)
    out = printed(capfdbinary, "--users=x,u1", "--unknown=popular")
    assert rows(out.splitlines()) == expected(
        "x u1".split(), *recommender.recommend(["x", "u1"], unknown="popular")
    )
    out = printed(capfdbinary, "--similar_to=i1").splitlines()
    assert rows(out, "similar_to") == expected(["i1"], *recommender.similar_items(["i1"]))


def test_histories_come_from_lines_of_json(capfdbinary, recommender):
    Path("s.jsonl").write_text('["i3", "i9"]\n\n{"items": ["i7"], "user": "ann"}\n')
    found = recommender.recommend_for([["i3", "i9"], ["i7"]], 3)
    assert rows(printed(capfdbinary, "--histories=s.jsonl", "--k=3").splitlines()) == expected(
        ["1", "ann"], *found
    )
    lines = [
        json.loads(line) for line in printed(capfdbinary, "--histories=s.jsonl", "--format=jsonl").splitlines()
    ]
    assert [line["user"] for line in lines] == ["1", "ann"] and len(lines[0]["items"]) == 10
    with pytest.raises(SystemExit):
        main(["recommend", "model.rdsl", "--histories=s.jsonl", "--filter_seen=trained"])


def test_every_format_holds_the_same(recommender):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    users = [f"u{user}" for user in range(12)]
    items, scores = recommender.recommend(users, 5)
    wanted = expected(users, items, scores)
    for name in ("a.csv", "a.jsonl", "a.parquet", "a.CSV"):
        main(["recommend", "model.rdsl", "--users=all", "--k=5", f"--output={name}"])
    with open("a.csv", newline="") as file:
        assert rows(file) == wanted
    assert Path("a.CSV").read_bytes() == Path("a.csv").read_bytes()
    assert list(pandas.read_parquet("a.parquet").itertuples(index=False, name=None)) == wanted
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == users and lines[-1]["items"] == lines[-1]["scores"] == []
    assert lines[0]["items"] == [item for item in items[0] if item is not None]
    assert np.array_equal(np.array(lines[0]["scores"], np.float32), scores[0][: len(lines[0]["scores"])])


def test_a_file_is_confirmed_on_stderr_and_to_a_program_on_stdout(capfd, recommender):
    main(["recommend", "model.rdsl", "--similar_to=i1,i2", "--k=3", "--output=a.jsonl"])
    out, err = capfd.readouterr()
    assert err == "a.jsonl: 6 recommendations for 2 items\n"
    assert json.loads(out) == {"output": "a.jsonl", "format": "jsonl", "n_items": 2, "n_recommendations": 6}
    assert json.loads(Path("a.jsonl").read_text().splitlines()[1])["similar_to"] == "i2"
    # such a file is one of ours
    main(["recommend", "model.rdsl", "--users=u1", "--k=1", "--output=a.jsonl", "--output-format=text"])
    assert capfd.readouterr() == ("", "a.jsonl: 1 recommendation for 1 user\n")


WRONG = {
    "result": (
        ["model.rdsl", "--users=u1", "--output-format=xml"],
        "output-format=xml: must be one of text, json",
    ),
    "no result": (["model.rdsl", "--users=u1", "--output-format=json"], "output-format=json: must be left out"),
    "no artifact": (["nowhere", "--users=u1"], "artifact=nowhere: must be an existing file"),
    "nobody": (["model.rdsl"], "must be given one of --users, --users_file, --histories, --similar_to"),
    "two": (["model.rdsl", "--users=u1", "--similar_to=i1"], "--users and --similar_to: must be one of --users"),
    "k": (["model.rdsl", "--users=u1", "--k=no"], "k=no: must be an integer >= 1"),
    "k=0": (["model.rdsl", "--users=u1", "--k=0"], "k=0: must be an integer >= 1"),
    "unknown users": (["model.rdsl", "--users=u1,x,y"], "users=x, y: must be users that the model was trained on"),
    "an empty token": (["model.rdsl", "--users="], "users='': must be users that the model was trained on"),
    "no file": (["model.rdsl", "--users_file=no"], "users_file=no: must be a file that can be read: No such file"),
    "a folder": (["model.rdsl", "--users_file=."], "users_file=.: must be a file that can be read"),
    "an empty file": (["model.rdsl", "--users_file=empty"], "users_file=empty: must have a token on each line"),
    "no text": (["model.rdsl", "--users_file=model.rdsl"], "users_file=model.rdsl: must be text in UTF-8"),
    "no histories": (["model.rdsl", "--histories=empty"], "histories=empty: must have a history on each line"),
    "no JSON": (["model.rdsl", "--histories=bad.jsonl"], "histories=bad.jsonl, line 2: ["),
    "format": (["model.rdsl", "--users=u1", "--format=xml"], "format=xml: must be one of csv, jsonl, parquet"),
    "ending": (["model.rdsl", "--users=u1", "--output=a.xml"], "output=a.xml: must end in csv, jsonl, parquet"),
    "parquet": (["model.rdsl", "--users=u1", "--format=parquet"], "format=parquet: must have an --output file"),
    "place": (["model.rdsl", "--users=u1", "--output=no/a.csv"], "output=no/a.csv: must be a place that can be"),
    "progress": (["model.rdsl", "--users=u1", "--show_progress=1"], "show_progress=1: must be True or False"),
    "option": (["model.rdsl", "--users=u1", "--topk=3"], "--topk=3: must be one of the options that --help lists"),
    "both": (
        ["model.rdsl", "--users=u1", "--items=i1", "--items_file=empty"],
        "items=i1: must be given here or",
    ),
    "users twice": (
        ["model.rdsl", "--users=u1", "--users=u2"],
        "--users=u2: must be given once, and is --users=u1",
    ),
    "nothing left": (
        ["model.rdsl", "--users=u1", "--items=i1,i2", "--exclude=i2,i1,i3"],
        "exclude=i2,i1,i3: must be some of items at most",
    ),
    "late": (
        ["model.rdsl", "--users=all", "--output=a.csv", "--items=x"],
        "items=x: must be items that",
    ),
}


@pytest.mark.parametrize("arguments, message", WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_used_is_one_line_and_writes_nothing(arguments, message, capfd):
    MADE.write()
    Path("empty").write_text("\n")
    Path("bad.jsonl").write_text('["i1"]\n[1.5]\n')
    before = sorted(os.listdir())
    assert f"recbole-dsl recommend: {message}" in refused(capfd, "recommend", *arguments)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    "line", ["{", "3", "null", "[[]]", '["i1", null]', '{"user": "u1"}', "[" * 10**5, "[true]"]
)
def test_a_line_that_is_no_history_is_named(line, capfd):
    MADE.write()
    Path("s.jsonl").write_text(f'["i1"]\n{line}\n')
    assert "histories=s.jsonl, line 2: " in refused(capfd, "recommend", "model.rdsl", "--histories=s.jsonl")


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(monkeypatch, recommender):
    before = "user,rank,item,score\nu1,1,i1,0.5\n"
    Path("a.csv").write_text(before)
    size = type(recommender.scorer).batch_size
    monkeypatch.setattr(type(recommender.scorer), "batch_size", 3)
    usual, calls = Recommender.recommend, []

    def fail_later(*arguments, **options):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return usual(*arguments, **options)

    monkeypatch.setattr(Recommender, "recommend", fail_later)
    with pytest.raises(SystemExit) as exit:
        main(["recommend", "model.rdsl", "--users=all", "--output=a.csv"])
    assert exit.value.code == 130 and size > 3
    assert Path("a.csv").read_text() == before and sorted(os.listdir()) == ["a.csv", "model.rdsl"]


def test_help_loads_nothing_heavy():
    code = "import sys\nfrom recbole_dsl.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    for command in ("export", "recommend"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"],
            capture_output=True, text=True, timeout=60, cwd=Path(__file__).parent.parent.parent,
        )  # fmt: skip
        assert "--values" in done.stdout or "--users" in done.stdout
        assert not {"numpy", "torch", "recbole", "safetensors"} & set(done.stdout.splitlines()[-1].split())


def test_a_reader_who_has_enough_gets_no_traceback(recommender):
    command = [sys.executable, "-m", "recbole_dsl", "recommend", "model.rdsl", "--users=all", "--k=10"]
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


def test_new_items_come_from_a_file_and_bad_lines_are_named(capfd):
    Path("new.jsonl").write_text('{"item": "new", "users": ["u1", "u3"]}\n\n{"item": "new", "users": ["u2"]}\n')
    model = Recommender.load(make().write()).with_items({"new": ["u1", "u3", "u2"]})
    main(["recommend", "model.rdsl", "--similar_to=new", "--k=3", "--new_items=new.jsonl"])
    assert rows(capfd.readouterr().out.splitlines(), "similar_to") == expected(
        ["new"], *model.similar_items(["new"], 3)
    )
    for line in ("new", '["new"]', '{"item": "a"}', '{"item": null, "users": []}', '{"item": "a", "users": [[]]}'):
        Path("new.jsonl").write_text(line)
        err = refused(capfd, "recommend", "model.rdsl", "--users=u1", "--new_items=new.jsonl")
        assert "new_items=new.jsonl, line 1: " in err and 'must be {"item": "i3", "users": ["u1", "u9"]}' in err
