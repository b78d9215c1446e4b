"""Files that are whole or not there, and whose damage is seen."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recbole_dsl import DSLError
from recbole_dsl.checkpoint.archive import damage, has_checksum, write_archive
from recbole_dsl.files import require_writable


def save(content, path="file.pth"):
    write_archive(path, lambda file: torch.save(content, file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "file.pth"
    save({"x": torch.arange(100)}, str(path))
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**30))
def test_any_bit_that_changes_is_seen(whole, place):
    place %= 8 * len(whole)
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << (place % 8)
    Path("changed").write_bytes(changed)
    assert damage("changed")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, 2**30))
def test_a_file_that_is_cut_off_is_seen(whole, length):
    Path("changed").write_bytes(whole[: length % len(whole)])
    assert damage("changed")


def test_a_file_without_a_checksum_is_taken_if_its_parts_are_whole():
    torch.save({"x": torch.arange(100)}, "plain.pth")
    assert damage("plain.pth") is None and not has_checksum("plain.pth")
    save({})
    assert damage("file.pth") is None and has_checksum("file.pth")


def test_a_file_has_the_permissions_that_files_get():
    save({})
    Path("other").write_text("")
    assert Path("file.pth").stat().st_mode == Path("other").stat().st_mode


def test_a_full_disk_leaves_the_file_as_it_was_and_is_one_line():
    save({"x": torch.ones(3)})
    before = Path("file.pth").read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, usual[0][1]))
    try:
        with pytest.raises(DSLError, match=r"^checkpoint_dir=\S+: cannot write file.pth: File too large$"):
            save({"x": torch.ones(10**6)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual[0])
        signal.signal(signal.SIGXFSZ, usual[1])
    assert os.listdir() == ["file.pth"] and Path("file.pth").read_bytes() == before


def test_where_there_are_no_nameless_files_nothing_stays_either(monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    save({"x": torch.ones(3)})
    with pytest.raises(Exception):  # noqa: B017
        save({"x": lambda: None})
    assert os.listdir() == ["file.pth"] and damage("file.pth") is None


def test_a_place_that_cannot_be_written_is_one_line():
    Path("file").write_text("")
    for place in ("file", "file/folder"):
        with pytest.raises(DSLError, match=f"^checkpoint_dir={place}: must be a folder$"):
            require_writable(place)
    require_writable("a/new/folder")
    assert os.listdir("a/new/folder") == []
