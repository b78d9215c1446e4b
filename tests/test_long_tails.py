"""The data that benchmarks.quality makes: short histories, and small groups of items."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import long_tails
from benchmarks.long_tails import GROUP_SIZE, ensure_dataset


@pytest.fixture(autouse=True)
def few_users(monkeypatch):
    monkeypatch.setattr(long_tails, "_USERS", 500)


def pairs_of(folder, name):
    head, *lines = (folder / name / f"{name}.inter").read_text().splitlines()
    assert head == "user_id:token\titem_id:token"
    return [tuple(line.split("\t")) for line in lines]


def test_a_thinned_dataset_keeps_so_many_interactions_of_each_user(tmp_path):
    (tmp_path / "data" / "some-name").mkdir(parents=True)
    lines = [f"u{n % 5}\ti{n}\t{n}" for n in range(20)] + ["u9\ti3\t1"]
    file = tmp_path / "data" / "some-name" / "some-name.inter"
    file.write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(lines) + "\n")
    made = tmp_path / "made"
    assert ensure_dataset("some-name-thin-3", str(tmp_path / "data"), str(made)) == str(made)
    pairs = pairs_of(made, "some-name-thin-3")
    assert Counter(user for user, _ in pairs) == {**{f"u{n}": 3 for n in range(5)}, "u9": 1}
    assert len(set(pairs)) == len(pairs)
    assert {f"{user}\t{item}" for user, item in pairs} <= {line.rpartition("\t")[0] for line in lines}


def test_users_of_groups_have_items_of_two_or_three(tmp_path):
    ensure_dataset("groups-50", "", str(tmp_path))
    groups: dict[str, set[int]] = {}
    for user, item in pairs_of(tmp_path, "groups-50"):
        groups.setdefault(user, set()).add(int(item) // GROUP_SIZE)
    assert {len(of_user) for of_user in groups.values()} == {2, 3}
    assert set().union(*groups.values()) == set(range(50))


def test_any_other_name_is_a_dataset_of_the_given_folder(tmp_path):
    for name in ("ml-1m", "ml-100k", "groups", "my-groups-5"):
        assert ensure_dataset(name, "data", str(tmp_path)) == "data"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["groups-30", "fields-500"])
def test_many_runs_may_make_a_dataset_at_once(tmp_path, name):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ensure_dataset(name, "", str(tmp_path)), range(4)))
    assert [file.name for file in (tmp_path / name).iterdir()] == [f"{name}.inter"]
