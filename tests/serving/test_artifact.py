"""The file: what is written is read, whole; what is damaged, foreign or hostile is one line."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from recbole_dsl.errors import DSLError
from recbole_dsl.serving import Recommender
from recbole_dsl.serving.artifact import _checksum, read_artifact, write_artifact
from tests.serving.artifacts import make

MADE = make()
WHOLE = {**MADE.header, "format": "recbole_dsl.serving", "version": 4}


def forge(header, arrays, path="forged.rdsl"):
    """A file with a right checksum, whatever it says."""
    header = {**header, "checksum": _checksum(header, arrays)}
    with open(path, "wb") as file:
        file.write(save(arrays, {"recbole_dsl": json.dumps(header)}))
    return path


def refused(path):
    with pytest.raises(DSLError, match=r"^artifact=") as error:
        Recommender.load(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    return str(error.value)


def test_what_is_written_is_read_to_the_bit():
    size = write_artifact("model.rdsl", MADE.header, MADE.arrays)
    artifact = read_artifact("model.rdsl")
    assert size == os.path.getsize("model.rdsl") and MADE.header.items() <= artifact.header.items()
    assert artifact.arrays.keys() == MADE.arrays.keys()
    for name, array in MADE.arrays.items():
        assert artifact.arrays[name].dtype == array.dtype and (artifact.arrays[name] == array).all()
    assert os.listdir() == ["model.rdsl"]


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    MADE.write("model.rdsl")
    before = Path("model.rdsl").read_bytes()
    with pytest.raises(ValueError):
        write_artifact("model.rdsl", {**MADE.header, "options": {"x": float("nan")}}, MADE.arrays)
    os.mkdir("folder")
    with pytest.raises(DSLError, match="artifact=folder: must be a place that can be written"):
        write_artifact("folder", MADE.header, MADE.arrays)
    with pytest.raises(DSLError, match="artifact=no/x: must be a place that can be written"):
        write_artifact("no/x", MADE.header, MADE.arrays)
    assert Path("model.rdsl").read_bytes() == before and sorted(os.listdir()) == ["folder", "model.rdsl"]


def test_every_changed_bit_and_every_cut_is_seen():
    content = bytearray(Path(MADE.write()).read_bytes())
    random = np.random.default_rng(0)
    for place in [*range(0, 40), *random.integers(0, len(content), 200).tolist()]:
        changed = bytearray(content)
        changed[place] ^= 1 << random.integers(8)
        Path("changed.rdsl").write_bytes(changed)
        refused("changed.rdsl")
    for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        Path("changed.rdsl").write_bytes(content[:length])
        refused("changed.rdsl")
    Path("changed.rdsl").write_bytes(content + b"x")
    refused("changed.rdsl")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"x" * 100, pickle.dumps(Bomb()), b"PK\x03\x04" + bytes(100), b"\xff" * 64,
        (2**63).to_bytes(8, "little") + b"{}", (10**9).to_bytes(8, "little") + b"{}",
        save({"a": np.zeros(3)}), save({"a": np.zeros(3)}, {"recbole_dsl": "[" * 10**5}),
        save({"a": np.zeros(3)}, {"recbole_dsl": "NaN"}), save({"a": np.zeros(3)}, {"recbole_dsl": "{}"}),
    ],
)  # fmt: skip
def test_files_that_are_not_ours_are_refused_and_run_nothing(content):
    Path("foreign.rdsl").write_bytes(content)
    assert "must be a" in refused("foreign.rdsl") and os.listdir() == ["foreign.rdsl"]


def test_places_that_are_no_file_are_refused():
    os.mkdir("folder")
    for path in ("folder", "nowhere", "", "/dev/zero"):
        assert refused(path).endswith("must be an existing file")


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"version": 5}, "has version 5, must be at most 4: update recbole_dsl"),
        ({"version": 0}, "has version 0"),
        ({"version": True}, "has version True"),
        ({"version": "1"}, "has version 1, must be a number"),
        ({"format": "other"}, "must be an artifact of recbole_dsl"),
        ({"kind": "os"}, "unknown"),
        ({"kind": "../x"}, "kind must be the name of a kind"),
        ({"kind": ["product"]}, "kind must be the name of a kind"),
        ({"model": 3}, "model must be text"),
        ({"n_users": 10**12}, "n_users must be a number"),
        ({"n_users": -1}, "n_users must be a number"),
        ({"n_items": 7}, "items.codes is (24,), must be (16)"),
        ({"options": []}, "options must be"),
        ({"scorer": None}, "scorer must be"),
        ({"scorer": {}}, "product.users must be described"),
        ({"scorer": {**MADE.header["scorer"], "transform": "eval"}}, "transform must be one of"),
        ({"scorer": {**MADE.header["scorer"], "has_bias": 1}}, "has_bias must be true or false"),
        ({"scorer": {**MADE.header["scorer"], "propagation": []}}, "propagation must be from 1 to 9 numbers"),
        ({"scorer": {**MADE.header["scorer"], "propagation": [1e9]}}, "propagation must be from 1 to 9 numbers"),
        ({"scorer": {**MADE.header["scorer"], "propagation": ["1"]}}, "propagation must be from 1 to 9 numbers"),
        ({"scorer": {**MADE.header["scorer"], "propagation": "x"}}, "propagation must be from 1 to 9 numbers"),
    ],
)
def test_headers_that_make_no_sense_are_refused(changes, problem):
    assert problem in refused(forge({**WHOLE, **changes}, MADE.arrays))


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in ("format", "version")])
def test_a_header_that_lacks_a_part_is_refused(name):
    header = {key: value for key, value in WHOLE.items() if key != name}
    assert f"has no {name}" in refused(forge(header, MADE.arrays))


@pytest.mark.parametrize("name", MADE.arrays)
def test_arrays_of_other_kinds_lengths_and_places_are_refused(name):
    array = MADE.arrays[name]
    for other in (array[:-1], array.astype(np.float32) + 0.5, array[None], np.zeros(0, array.dtype), None):
        arrays = {key: value for key, value in MADE.arrays.items() if key != name}
        if other is not None:
            arrays[name] = np.ascontiguousarray(other)
        is_right = name.endswith(".codes") and other is not None and other.shape == array.shape
        if not is_right:
            refused(forge(WHOLE, arrays))


@pytest.mark.parametrize("extra", ["network.weights", "os", "", "product", "../x"])
def test_arrays_that_nothing_asks_for_are_refused(extra):
    assert "is unknown" in refused(forge(WHOLE, {**MADE.arrays, extra: np.zeros(3, np.uint8)}))


def test_types_that_no_artifact_has_are_refused():
    arrays = {**MADE.arrays, "seen.counts": MADE.arrays["seen.counts"].astype(np.int64)}
    assert "seen.counts is I64, must be one of" in refused(forge(WHOLE, arrays))


@given(st.sampled_from(sorted(MADE.arrays)), st.integers(0, 10**6), st.integers(0, 255))
def test_whatever_an_array_holds_is_refused_or_answered(name, place, byte):
    """With a right checksum, as who means harm would make it."""
    array = MADE.arrays[name].copy()
    raw = array.view(np.uint8).reshape(-1)
    raw[place % len(raw)] = byte
    path = forge(WHOLE, {**MADE.arrays, name: array})
    try:
        recommender = Recommender.load(path)
    except DSLError as error:
        assert "\n" not in str(error)
        return
    items, scores = recommender.recommend(recommender.users.all[:3], k=4)
    assert items.shape == scores.shape == (3, 4)
    recommender.recommend_for([recommender.items.all[:2]])
    recommender.similar_items(recommender.items.all[:2])
