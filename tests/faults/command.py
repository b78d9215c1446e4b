"""The command ``recbole-dsl train`` in a process that is forked when all is imported, which takes it no time."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recbole_dsl import cli
from tests.faults.forks import start, wait
from tests.tiny import write_tiny

# what a case does not say itself
BASE = """
model: BPR
dataset: tiny
data_path: data
load_col: {inter: [user_id, item_id]}
epochs: 1
train_batch_size: 256
embedding_size: 8
show_progress: False
density: 0.5
"""


@dataclass(frozen=True)
class Row:
    """A case and what is wrong with how it went; None if nothing."""

    case: str
    problem: str | None


@dataclass(frozen=True)
class Done:
    """How a command ended, and the files that lie in its folder: path -> bytes, before and after."""

    code: int
    out: str
    err: str
    before: Mapping[str, bytes]
    after: Mapping[str, bytes]


def train(folder: Path, arguments: Sequence[str], files: Mapping[str, str | bytes | None]) -> Done:
    """Run the command in ``folder``, where the dataset "tiny" lies in data/ and the options BASE in base.yaml.

    Args:
        arguments: options that rank above BASE; a file among --config_files is read after it.
        files: path -> content of further files, or of others in the place of those; None for none.
    """
    (folder / "data").mkdir(parents=True)
    write_tiny(folder / "data" / "tiny")
    (folder / "base.yaml").write_text(BASE)
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if path.endswith("/"):
            file.mkdir()
        elif content is not None:
            file.write_bytes(content.encode() if isinstance(content, str) else content)
    before = _files(folder)
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    code = wait(start(partial(_train, arguments), folder, out, err))
    return Done(code, out.read_text(), err.read_text(errors="replace"), before, _files(folder))


def _train(arguments: Sequence[str]) -> None:

    signal.alarm(120)
    files = ["base.yaml", *(a.partition("=")[2] for a in arguments if a.startswith("--config_files="))]
    others = [a for a in arguments if not a.startswith("--config_files=")]
    named = {a.partition("=")[0] for a in others}
    defaults = [a for a in ("--model=BPR", "--dataset=tiny") if a.partition("=")[0] not in named]
    cli.main(["train", *defaults, f"--config_files={' '.join(files)}", *others])


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
