import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config

from recbole_dsl import run_recbole_dsl
from recbole_dsl.data import cache as cache_module
from recbole_dsl.data import kept_dataset
from recbole_dsl.data.cache import Cache
from recbole_dsl.data.loading import load_dataset
from tests.running import metrics

ARRAY = np.arange(3000).reshape(30, 100)
VALUE = {
    "array": ARRAY,
    "again": [ARRAY, (1, 2.5, None, True)],
    "texts": np.array(["a", "é", "[PAD]"]),
    "empty": np.zeros((0, 3)),
    "half": np.arange(5, dtype=np.float32) / 2,
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda of: st.lists(of) | st.tuples(of, of) | st.dictionaries(st.text() | st.integers(), of),
    max_leaves=20,
)


def same(one, other):
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other and type(one) is type(other)


@settings(max_examples=40)
@given(PLAIN)
def test_plain_data_comes_back_as_it_was(tmp_path_factory, value):
    cache = Cache(str(tmp_path_factory.mktemp("c")))
    cache.write("group", {"a": "1"}, value)
    assert same(cache.read("group", {"a": "1"}), value)
    assert cache.read("group", {"a": "2"}) is None
    assert cache.read("other", {"a": "1"}) is None


def test_arrays_come_back_and_can_be_written_to_without_a_change_of_the_entry(tmp_path):
    cache = Cache(str(tmp_path))
    cache.write("group", {}, VALUE)
    read = cache.read("group", {})
    assert same(read, VALUE) and read["again"][0] is read["array"]
    read["array"][:] = 0
    assert same(cache.read("group", {}), VALUE)


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_entry_is_not_believed(tmp_path_factory, place, bit, cut):
    folder = tmp_path_factory.mktemp("c")
    cache = Cache(str(folder))
    cache.write("group", {}, VALUE)
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    at = int(place * len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= 1 << bit
    file.write_bytes(content)
    read = cache.read("group", {})
    # between and after arrays there is nothing that counts
    assert read is None or same(read, VALUE)
    assert (read is None) != file.exists()
    cache.write("group", {}, VALUE)
    assert same(cache.read("group", {}), VALUE)


def test_a_strangers_file_is_no_entry(tmp_path, caplog):
    cache = Cache(str(tmp_path))
    cache.write("group", {}, VALUE)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"PK" + os.urandom(1000))
    assert cache.read("group", {}) is None
    assert len(caplog.messages) == 1 and str(file) in caplog.text


def test_the_oldest_entries_are_dropped(tmp_path, monkeypatch):
    cache = Cache(str(tmp_path))
    monkeypatch.setattr(cache_module, "_MOST", 4 * (ARRAY.nbytes + 1000))
    for number in range(6):
        cache.write(f"group{number}", {}, ARRAY)
        assert cache.read("group0", {}) is not None
        for place, file in enumerate(sorted(tmp_path.iterdir(), key=lambda f: ("group0" in f.name, f.name))):
            os.utime(file, (1e9 + place, 1e9 + place))
    left = [number for number in range(6) if cache.read(f"group{number}", {}) is not None]
    assert left == [0, 3, 4, 5]
    cache.write("large", {}, np.zeros(10**6))
    assert cache.read("large", {}) is None


_WRITER = """
import sys, numpy as np
from recbole_dsl.data.cache import Cache
cache = Cache(sys.argv[1])
print("ready", flush=True)
for number in range(10**9):
    cache.write("group", {}, {"number": number, "array": np.full(10**6, number)})
"""


def test_a_kill_leaves_an_entry_that_is_whole(tmp_path):
    cache = Cache(str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    seen = set()
    for _ in range(int(os.environ.get("KILLS", 3))):
        time.sleep(np.random.uniform(0.005, 0.05))
        os.kill(process.pid, signal.SIGSTOP)
        read = cache.read("group", {})
        assert read is None or (read["array"] == read["number"]).all()
        seen.add(read and read["number"])
        os.kill(process.pid, signal.SIGCONT)
    process.kill()
    process.wait()
    process.stdout.close()
    read = cache.read("group", {})
    assert read is None or (read["array"] == read["number"]).all()
    assert len(list(tmp_path.iterdir())) <= 1


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(kept_dataset, "_WORTH", 0)
    return str(tmp_path / "kept")


def test_other_content_and_other_options_have_entries_of_their_own(tmp_path, kept):
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "d.inter"

    def users(text, **options):
        file.write_text("user_id:token\titem_id:token\trating:float\n" + text)
        os.utime(file, (1e9, 1e9))
        config = Config("BPR", "d", config_dict={"data_path": str(tmp_path), "data_cache": kept, **options})
        return load_dataset(config).field2id_token["user_id"].tolist()

    text = "".join(f"u{k % 3}\ti{k}\t{k % 5}\n" for k in range(20))
    for _ in range(2):
        assert users(text) == ["[PAD]", "u0", "u1", "u2"]
        assert users(text.replace("u2", "u3")) == ["[PAD]", "u0", "u1", "u3"]
        assert users(text, user_inter_num_interval="[7,inf)") == ["[PAD]", "u0", "u1"]
        # another model and what does not concern the data have the same
        assert users(text, embedding_size=7, learning_rate=0.5) == ["[PAD]", "u0", "u1", "u2"]
    assert len(os.listdir(kept)) == 3


def test_a_run_is_the_same_from_the_cache_and_without_one(options, kept):
    results = [
        metrics(run_recbole_dsl("BPR", "tiny", config_dict={**options, "epochs": 1, "data_cache": c}))
        for c in (False, kept, kept)
    ]
    assert results[0] == results[1] == results[2]
    # what was read, and what was made of it when it was divided
    assert len(os.listdir(kept)) == 2


def test_a_folder_that_cannot_be_written_is_a_line_in_the_log(options, kept, caplog):
    with open(kept, "w"):
        pass
    config = Config("BPR", "tiny", config_dict={**options, "epochs": 1, "data_cache": kept})
    with caplog.at_level(logging.WARNING):
        assert load_dataset(config).user_num == 41
    assert [message for message in caplog.messages if message.startswith("data_cache=")]
    assert os.path.isfile(kept)


def test_what_recbole_warned_of_is_said_again(options, kept, caplog):
    more = {"user_inter_num_interval": "[1,2];[3,inf)", "data_cache": kept}
    said = []
    for _ in range(2):
        caplog.clear()
        load_dataset(Config("BPR", "tiny", config_dict={**options, **more}))
        said.append([message for message in caplog.messages if "More than one interval" in message])
    assert said[0] and said[0] == said[1]
