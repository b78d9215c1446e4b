"""The service: the Recommender's answers and lines over HTTP, and one artifact an answer."""

import json
import os

import pytest

testclient = pytest.importorskip("fastapi.testclient")
pytest.importorskip("prometheus_client")

from recbole_dsl.service.app import Settings, make_app  # noqa: E402
from recbole_dsl.service.live import Live  # noqa: E402
from recbole_dsl.serving import Recommender  # noqa: E402
from recbole_dsl.serving.artifact import read_artifact  # noqa: E402
from tests.serving.artifacts import make  # noqa: E402


class Service:
    """An artifact, what watches it, and a client."""

    def __init__(self, new_items=None, **options):
        self.path = os.path.abspath(make().write())
        settings = Settings(self.path, new_items, **options)
        self.live = Live(self.path, new_items)
        self.client = testclient.TestClient(make_app(self.live, settings))

    def replace(self, seed):
        make(seed).write("other.rdsl")
        os.replace("other.rdsl", self.path)

    def poll(self, times=2):
        for _ in range(times):
            self.live.poll()

    def ask(self, user="u1", k=5):
        found = self.client.get(f"/recommend?users={user}&k={k}")
        return found.headers.get("X-Artifact"), found.json()


@pytest.fixture
def service():
    made = Service(max_k=50, max_body=1000)
    made.live.poll()
    return made


def rows(found):
    """A Recommender's answer as the service gives it."""
    items, scores = found
    counts = [int((row != None).sum()) for row in items]  # noqa: E711
    return {
        "items": [row[:n].tolist() for row, n in zip(items, counts)],
        "scores": [row[:n].tolist() for row, n in zip(scores, counts)],
    }


def test_answers_are_those_of_the_recommender(service):
    recommender = Recommender.load(service.path)
    digest = read_artifact(service.path).header["checksum"][:12]
    asked = {
        "/recommend": [
            {"users": ["u1", "u11", "u2"], "k": 4},
            {"users": ["u1", "x"], "unknown": "popular", "filter_seen": "all", "exclude": ["i3"]},
            {"users": ["u1"], "items": ["i1", "i2", "i9"]},
        ],
        "/recommend_for": [{"histories": [["i1", "i2"], ["i7"]], "k": 3, "filter_seen": False}],
        "/similar_items": [{"items": ["i1", "i4"], "k": 7, "exclude": ["i9"]}],
    }
    for path, bodies in asked.items():
        for body in bodies:
            expected = rows(getattr(recommender, path[1:])(**body))
            found = service.client.post(path, json=body)
            assert found.status_code == 200 and found.json() == expected and found.headers["X-Artifact"] == digest
            if path != "/recommend_for":
                assert service.client.get(path, params=body).json() == expected


POSTS = {
    "k 0": ("/recommend", {"users": ["u1"], "k": 0}, "k=0: must be an integer >= 1"),
    "k a text": ("/recommend", {"users": ["u1"], "k": "many"}, "k=many: must be an integer >= 1"),
    "k null": ("/similar_items", {"items": ["i1"], "k": None}, "k=None: must be an integer >= 1"),
    "k too large": (
        "/recommend", {"users": ["u1"], "k": 51}, "k=51: must be an integer from 1 to 50, the service's max_k"
    ),
    "too many": ("/recommend", None, "users: must be at most 1000 in a request, here 1,001"),
    "unknown user": ("/recommend", {"users": ["x"]}, "users=x: must be users that the model was trained on"),
    "no users": ("/recommend", {"k": 3}, "users: must be given"),
    "another argument": ("/similar_items", {"items": ["i1"], "n": 3}, "n: must be one of k, exclude, items"),
    "one user": ("/recommend", {"users": "u1"}, "users=u1: must be tokens of users"),
    "a filter": (
        "/recommend", {"users": ["u1"], "filter_seen": "x"}, "filter_seen=x: must be one of all, trained, none"
    ),
    "a filter of a history": (
        "/recommend_for", {"histories": [["i1"]], "filter_seen": "all"}, "filter_seen=all: must be true or false"
    ),
    "no UTF-8": (
        "/recommend_for", {"histories": [["\ud800"]]},
        "histories=\ud800: must be items that the model was trained on",
    ),
    "a list": ("/recommend", ["u1"], "body: must be an object in JSON, and sent as application/json"),
}  # fmt: skip


@pytest.mark.parametrize("path, body, line", POSTS.values(), ids=POSTS.keys())
def test_a_wrong_request_gets_422_and_one_line(path, body, line):
    made = Service(max_k=50)
    made.live.poll()
    body = {"users": ["u1"] * 1001} if body is None else body
    found = made.client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert found.status_code == 422 and found.json() == {"detail": line}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 900, b"1" * 900])
def test_a_body_that_is_no_json_gets_422(service, content):
    found = service.client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
    assert found.status_code == 422 and found.json()["detail"].startswith("body: must be an object in JSON")


@pytest.mark.parametrize("is_told", [True, False])
def test_a_body_that_is_too_long_gets_413_and_is_not_read_to_the_end(service, is_told):
    read = []

    def body():
        for _ in range(3):
            read.append(1)
            yield b" " * 700

    content = b" " * 1001 if is_told else body()
    found = service.client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
    assert found.status_code == 413
    assert found.json()["detail"] == "body: must have at most 1000 bytes, the service's max_body"


def test_it_is_alive_before_it_is_ready():
    made = Service()
    assert made.client.get("/healthz").status_code == 200
    for path in ("/readyz", "/recommend?users=u1"):
        found = made.client.get(path)
        assert found.status_code == 503
        assert found.json() == {"detail": f"artifact={made.path}: is not loaded yet"}
    made.live.poll()
    found = made.client.get("/readyz").json()
    assert found.pop("artifact") == made.ask()[0]
    assert found == {"model": "BPR", "dataset": "tiny", "users": 12, "items": 20}


def test_a_new_artifact_takes_over_when_it_is_whole(service, caplog):
    caplog.set_level("INFO")
    first = service.ask()
    with open(service.path, "rb") as file:
        content = file.read()
    with open(service.path, "r+b") as file:
        file.seek(len(content) - 4)
        file.write(b"lost")
    service.poll()
    assert service.ask() == first
    (record,) = (one for one in caplog.records if one.levelname == "ERROR")
    line = record.getMessage()
    assert "its checksum differs" in line and line.endswith(f"; {first[0]} goes on") and "\n" not in line
    # it is looked at once
    service.poll(3)
    os.unlink(service.path)
    service.poll()
    assert service.ask() == first and len([one for one in caplog.records if one.levelname == "ERROR"]) == 2
    service.replace(7)
    service.poll(1)
    assert service.ask() == first
    service.poll(1)
    digest, answer = service.ask()
    assert digest != first[0] and answer == rows(Recommender.load(service.path).recommend(["u1"], 5))


def test_new_items_are_folded_in_whenever_either_file_changes():
    made = Service("new.jsonl")
    with open("new.jsonl", "w") as file:
        file.write('{"item": "new", "users": ["u1", "gone"]}\n\n{"item": "i1", "users": ["u1"]}\n')
    made.live.poll()
    first, _ = made.ask()
    expected = Recommender.load(made.path).with_items({"new": ["u1"]})
    body = {"histories": [["new"]], "k": 20}
    assert made.client.post("/recommend_for", json=body).json() == rows(expected.recommend_for([["new"]], 20))
    with open("new.jsonl", "a") as file:
        file.write('{"item": "newer", "users": ["u3"]}\n')
    made.poll()
    second, _ = made.ask()
    assert made.client.get("/similar_items?items=newer").status_code == 200
    with open("new.jsonl", "a") as file:
        file.write("newest\n")
    made.poll()
    assert made.ask()[0] == second
    os.unlink("new.jsonl")
    with open("new.jsonl", "w") as file:
        file.write('{"item": "other", "users": ["u3"]}\n')
    made.replace(7)
    made.poll()
    assert len({first, second, made.ask()[0]}) == 3


def test_requests_are_counted_by_path_and_status(service):
    cases = {("/recommend", 200): 2, ("/recommend", 422): 1, ("other", 404): 1}

    def counts():
        text = service.client.get("/metrics").text
        assert "strange" not in text and 'recbole_dsl_artifact_loads_total{result="loaded"}' in text
        numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        name = "recbole_dsl_request_duration_seconds_count"
        return {
            (path, status): float(numbers.get(f'{name}{{path="{path}",status="{status}"}}', 0))
            for path, status in cases
        }

    before = counts()
    service.ask()
    service.ask()
    service.ask(k=0)
    service.client.get("/strange")
    assert {case: number - before[case] for case, number in counts().items()} == cases
