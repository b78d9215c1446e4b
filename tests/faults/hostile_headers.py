"""Artifacts of networks whose header asks for what the file does not hold, behind a right checksum.

Every option of every model that is served by its network gets every hostile value. What comes of it is one line,
or scores, within 2 s of work and 1 GB.
"""

import copy
import os
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import yaml

from benchmarks.model_cases import CASES as MODELS
from benchmarks.model_cases import model_of
from tests.faults.command import Row
from tests.faults.forks import start
from tests.faults.hostile_files import CODE, MARK

SECONDS, BYTES = 2, 10**9
# what a child may take at all, so that a test that fails does not take the machine with it
_AT_MOST = 6 * 10**9
VALUES: dict[str, Any] = {
    "huge": 10**9,
    "beyond all integers": 10**30,
    "as large as is allowed somewhere": 2**16,
    "large": 20_000,
    "code": CODE,
    "huge in a list": [10**9, 10**9],
    "many in a list": [8] * 5000,
    "nothing": None,
}
# options of RecBole that models read beside their own
_COMMON = ("MAX_ITEM_LIST_LENGTH", "embedding_size", "hidden_act", "loss_type", "seed", "train_batch_size")


@dataclass(frozen=True)
class Network:
    """An artifact of a model, and the options that its model reads.

    Attributes:
        header: of the artifact, without what a case changes.
    """

    case: str
    header: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)
    options: tuple[str, ...]


def run() -> Iterator[Row]:
    """Every value for every option of every model, and every attribute of its data left out."""
    for name in dict.fromkeys(model_of(case) for cases in MODELS.values() for case in cases):
        with tempfile.TemporaryDirectory() as folder:
            network = exported(name, Path(folder))
            if network is None:
                continue
            for words, header in headers(network):
                yield Row(f"{name}: {words}", problem(network, header, Path(folder)))


def exported(name: str, folder: Path) -> Network | None:
    """The artifact of the model ``name``, untrained; None if it cannot be made here, for want of a package."""
    from recbole_dsl import DSLError
    from tests.network_scoring.exported import DENSITY, made
    from tests.tiny import write_tiny
    from tests.training.test_models import options_of

    (folder / "data").mkdir()
    write_tiny(folder / "data" / "tiny")
    found = [(family, case) for family, cases in MODELS.items() for case in cases if model_of(case) == name]
    try:
        one = made({**options_of(*found[0], str(folder / "data")), **DENSITY})
        scorer, arrays = one.parts()
    except DSLError as error:
        if "must have the package" in str(error):
            return None
        raise
    file = Path(recbole.__file__).parent / "properties" / "model" / f"{name}.yaml"
    own = yaml.safe_load(file.read_text()) or {}
    return Network(name, one.header(scorer), arrays, (*dict.fromkeys([*own, *_COMMON]),))


def headers(network: Network) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each says, and the header."""
    for option in network.options:
        for words, value in VALUES.items():
            changed = copy.deepcopy(network.header)
            changed["scorer"]["options"][option] = value
            yield f"{option} is {words}", changed
    for name in network.header["scorer"]["data"]["attributes"]:
        changed = copy.deepcopy(network.header)
        del changed["scorer"]["data"]["attributes"][name]
        yield f"no {name}", changed


def problem(network: Network, header: dict[str, Any], folder: Path) -> str | None:
    """What is wrong with how an artifact of this ``header`` is taken; None if nothing."""
    out = folder / "out.txt"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = start(partial(_use, network, header), folder, out)
    _, status, used = os.wait4(child, 0)
    code, text = os.waitstatus_to_exitcode(status), out.read_text(errors="replace")
    if code:
        return f"exit code {code}: {text[-400:]}"
    if (folder / MARK).exists():
        return "code ran"
    seconds, size = used.ru_utime + used.ru_stime, 1024 * (used.ru_maxrss - before)
    return f"{seconds:.1f} s, {size / 1e9:.1f} GB" if seconds > SECONDS or size > BYTES else None


def _use(network: Network, header: dict[str, Any]) -> None:
    from recbole_dsl import DSLError
    from recbole_dsl.network_scoring.artifact import load
    from recbole_dsl.serving.artifact import Artifact

    resource.setrlimit(resource.RLIMIT_CPU, (5 * SECONDS, 5 * SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_AT_MOST, _AT_MOST))
    try:
        scorer = load(Artifact("x.rdsl", header, network.arrays))
    except DSLError as error:
        if "\n" in str(error) or len(str(error)) > 500:
            raise AssertionError(f"not one line: {error}") from error
        return
    # what is loaded scores
    scorer.scores(np.arange(3))
