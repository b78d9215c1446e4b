"""Files of others stay as they are, and no command writes over what it reads or over a file of another kind."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from recbole_dsl import DSLError, cli, run_recbole_dsl
from recbole_dsl.files import output_file
from recbole_dsl.report.writing import write_report
from recbole_dsl.serving import export
from tests.tiny import write_tiny

NAMES = (
    ".part", ".movie.mkv.part", ".0123456789abcdef.part", ".recbole-dsl-0123456789abcdef.part", "x.part", "x.tmp",
    ".x.lock", "x.lock", "BPR.pth", "BPR-Nov-01-2026_00-00-00-abcdef.pth", "BPR-x.last", "x.rdsl", ".hidden", "x~",
    "a name", "events.out.tfevents.1", "tiny-Dataset.pth", "tiny-for-BPR-dataloader.pth", "best.pth", "1",
)  # fmt: skip
FOLDERS = ("", "saved", "log", "log/BPR", "log_tensorboard", "tuned", "search/trials/1", "search/trials/2")
COMMON = "--model=BPR --dataset=tiny --config_files=base.yaml"


@pytest.fixture
def here(options):
    """The options of a training in a file, and the parameters of a search."""
    Path("base.yaml").write_text(yaml.safe_dump({**options, "epochs": 1}))
    Path("p.hyper").write_text("learning_rate choice [0.01, 0.1]\n")


def contents(top="."):
    """path -> what there is, links as links."""
    found = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            link = path.is_symlink()
            found[str(path)] = (
                os.readlink(path) if link else path.read_bytes() if path.is_file() else path.stat().st_ino
            )
    return found


def strangers():
    """Put some of every kind wherever something is written; returns all that there is then."""
    for folder in FOLDERS:
        Path(folder, "empty").mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(NAMES):
            path = Path(folder, name)
            if not path.exists():
                path.write_bytes(b"" if number % 3 == 0 else f"of a stranger, {number}".encode())
        Path(folder, ".link.part").symlink_to("x.part")
        Path(folder, ".broken.part").symlink_to("nowhere")
    return contents()


@pytest.mark.parametrize("nameless", [True, False])
def test_no_command_touches_files_of_others(here, monkeypatch, nameless):
    pytest.importorskip("hyperopt")
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE")
        monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    search = f"tune {COMMON} --params_file=p.hyper --output=search"
    cli.main(search.split())
    # they come when the search has begun, and its trials are gone
    shutil.rmtree("search/trials")
    os.unlink("search/trials.jsonl")
    before = strangers()
    cli.main(search.split())
    cli.main(f"train {COMMON} --report".split())
    (model,) = (str(path) for path in Path("saved").glob("BPR-*.pth") if path.name not in NAMES)
    for command in (
        f"train {COMMON} --epochs=2 --resume={model}",
        f"export {model} new.rdsl",
        "recommend new.rdsl --users=all --output=new.csv",
        f"report {model} --output=new.html",
    ):
        cli.main(command.split())
    after = contents()
    of_the_search = {f"search/best.{kind}" for kind in ("yaml", "pth", "json")} | {"search/plot.html"}
    assert {path for path in before if after.get(path) != before[path]} <= of_the_search
    assert not [path for path in after.keys() - before.keys() if ".recbole" in path]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a dataset, a checkpoint, an artifact, recommendations of each format and a page."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_tiny(folder / "tiny")
        options = {"data_path": ".", "load_col": {"inter": ["user_id", "item_id"]}, "epochs": 1}
        run_recbole_dsl("BPR", "tiny", config_dict=options)
        (model,) = Path("saved").glob("*.pth")
        model.rename("model.pth")
        shutil.rmtree("saved")
        export("model.pth", "model.rdsl", compare=False)
        write_report(["model.pth"], "page.html")
        for kind in ("csv", "jsonl", "parquet"):
            cli.main(["recommend", "model.rdsl", "--users=all", f"--output=all.{kind}", "--format=" + kind])
    (folder / "users.txt").write_text("u1\n")
    (folder / "items.txt").write_text("i1\n")
    (folder / "liked.jsonl").write_text('["i1"]\n')
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    shutil.copytree(made, "folder")
    monkeypatch.chdir("folder")


WRITERS = {
    "export model.pth {}": "model.rdsl",
    "report model.pth --output={}": "page.html",
    "recommend model.rdsl --users_file=users.txt --format=csv --output={}": "all.csv",
    "recommend model.rdsl --histories=liked.jsonl --format=jsonl --output={}": "all.jsonl",
    "recommend model.rdsl --users=u1 --exclude_file=items.txt --format=parquet --output={}": "all.parquet",
}


def refused(command, capfd):
    with pytest.raises(SystemExit) as exit:
        cli.main(command.split())
    error = capfd.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1, error
    return error


def names_of(file):
    """Ways to name it."""
    os.symlink(file, "link")
    os.symlink("link", "link_of_a_link")
    os.link(file, "hard")
    os.symlink(os.curdir, "here")
    return [
        file,
        f"./{file}",
        os.path.abspath(file),
        f"tiny/../{file}",
        f"here/{file}",
        "link",
        "link_of_a_link",
        "hard",
    ]


@pytest.mark.parametrize("command", WRITERS)
def test_a_file_is_only_replaced_by_one_of_its_kind(folder, command, capfd):
    kept = WRITERS[command]
    files = [name for name in os.listdir() if os.path.isfile(name) and name != kept]
    os.mkfifo("pipe")
    Path("text").write_text("user,item\n")
    before = contents()
    for name in (*files, "text", "pipe", "tiny", "tiny/", "new/", "tiny/tiny.inter", "log"):
        error = refused(command.format(name), capfd)
        assert "must be a" in error and contents() == before
    Path("empty").write_text("")
    for name in (kept, "empty", "new"):
        cli.main(command.format(name).split())
    changed = {path for path, what in contents().items() if before.get(path) != what}
    assert changed <= {kept, "empty", "new"} and {"empty", "new"} <= changed


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_read_is_not_written_under_any_name(folder, command, capfd):
    read = [word.partition("=")[2] or word for word in command.split()[1:-1]]
    for file in (name for name in read if os.path.isfile(name)):
        names = names_of(file)
        before = contents()
        for name in names:
            assert f"another file than {file}, which is read" in refused(command.format(name), capfd)
        assert contents() == before
        for name in ("link", "link_of_a_link", "hard", "here"):
            os.unlink(name)


def test_a_link_is_followed_and_stays(folder):
    os.mkdir("days")
    os.symlink("days/today.rdsl", "latest.rdsl")
    for _ in range(2):
        export("model.pth", "latest.rdsl", compare=False)
        assert os.listdir("days") == ["today.rdsl"] and os.readlink("latest.rdsl") == "days/today.rdsl"


@pytest.mark.parametrize("path", [None, "", 3, b"x"])
def test_a_path_must_be_one(path):
    with pytest.raises(DSLError, match=r"^output=.*: must be the path of a file$"):
        output_file(path, "output", "a page", lambda place: True)


@pytest.mark.parametrize("kind", ["pth", "last"])
def test_a_run_that_goes_on_replaces_checkpoints_only(folder, kind, capfd):
    other = {"pth": "last", "last": "pth"}[kind]
    os.rename("model.pth", f"run.{kind}")
    Path(f"run.{other}").write_text("mine")
    before = contents()
    assert refused(f"train --resume=run.{kind} --epochs=2", capfd)
    assert {path: what for path, what in contents().items() if path in before} == before


def test_what_recbole_saves_replaces_what_it_saved_only(folder, capfd):
    os.mkdir("saved")
    for name in ("tiny-Dataset.pth", "tiny-for-BPR-dataloader.pth"):
        Path("saved", name).write_text("mine")
    before = contents()
    command = "train --model=BPR --dataset=tiny --data_path=. --epochs=1 "
    for option in ("save_dataset", "save_dataloaders"):
        assert refused(f"{command} --{option}=True", capfd).startswith(f"recbole-dsl train: {option}=saved/tiny-")
        assert contents() == before


def test_a_search_does_not_write_over_what_it_reads(here, capfd):
    pytest.importorskip("hyperopt")
    command = f"tune {COMMON} --params_file=p.hyper --output=search --trials=1"
    cli.main(command.split())
    os.unlink("search/plot.html")
    os.link("p.hyper", "search/plot.html")
    before = contents()
    capfd.readouterr()
    assert "another file than p.hyper, which is read" in refused(command, capfd)
    assert contents() == before
