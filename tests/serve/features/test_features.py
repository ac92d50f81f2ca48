"""`/v1/recommend` for a user whose history and features are fetched, by a real server from a real Redis."""

import contextlib
import json
import pathlib
import queue
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import COMMAND, POPULAR, Server, running
from tests.serve.shop import write_shop
from tests.serve.test_follow import until_said
from tests.serve.test_metrics import scrape
from tests.services.redis import PASSWORD, RedisServer, redis_server
from tradewind.client import Client
from tradewind.models import publish
from tradewind.serve.features import encode
from tradewind.store import open_store

ROUTE = "/v1/recommend"
FETCHES = "tradewind_features_fetches_total"
ALICE = (["i1", "i2"], {"vip": 1.0})


@contextlib.contextmanager
def serving(model: object, home: pathlib.Path, slo_ms: float = 5000, **features: Any) -> Iterator[Server]:
    """Serve a model with a feature store."""
    path = home / "endpoint.yaml"
    path.write_text(json.dumps({"model": str(model), "slo": {"latency_ms": slo_ms}, "features": features}))
    with running(path, home) as server:
        yield server


@pytest.fixture(scope="module")
def server(
    recommender: pathlib.Path, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with serving(recommender, home, 60_000, store=shared_redis.url, max_ms=60_000) as server:
        yield server


def ask(client: httpx2.Client, server: Server, **body: Any) -> tuple[list[tuple[str, float]], str | None]:
    """The items with their scores, and what the answer says of the features."""
    answer = client.post(server.url + ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    return [(i["item"], i["score"]) for i in answer.json()["items"]], answer.headers.get("x-features")


def items(answer: tuple[list[tuple[str, float]], str | None]) -> list[str]:
    """The items alone: the last bit of a score depends on who shares the batch."""
    return [item for item, _ in answer[0]]


def waiting(client: httpx2.Client, server: Server, count: int) -> None:
    """Until so many requests wait for their user."""
    while scrape(client, server.url)["tradewind_features_waiting",] != count:
        assert server.process.poll() is None


def test_a_stored_history_counts_as_if_the_request_had_brought_it(client, server, redis):
    """Before the request's own events, or alone."""
    redis.put("user:u17", encode(["i1", "i2"]))
    plain, none = ask(client, server, history=["i1", "i2", "i3"])
    assert none is None
    assert ask(client, server, user_id="u17", history=["i3"]) == (plain, "hit")
    assert ask(client, server, user_id="u17") == (ask(client, server, history=["i1", "i2"])[0], "hit")
    newest, _ = ask(client, server, history=["i3"])
    assert ask(client, server, user_id="u18", history=["i3"]) == (newest, "missing")


def test_what_is_malformed_or_unknown_is_left_out_and_counted(client, server, redis):
    """Never an error: the user is as good as missing, or goes without the item."""
    redis.put("user:1", b'{"history": 3}')
    redis.put("user:2", encode(["i1", "gone", "i2"], {"height": 3.0}))
    before = scrape(client, server.url)
    newest, _ = ask(client, server, history=["i3"])
    assert ask(client, server, user_id=1, history=["i3"]) == (newest, "malformed")
    assert ask(client, server, user_id=2) == (ask(client, server, history=["i1", "i2"])[0], "hit")
    after = scrape(client, server.url)
    for name in (("tradewind_features_items_dropped_total",), (FETCHES, ("outcome", "malformed"))):
        assert after[name] - before.get(name, 0) == 1


def test_many_users_at_once_share_round_trips(client, server, redis):
    """All that come while the first is under way are in one command, and everyone gets their own answer."""
    for n in range(1, 41):
        redis.put(f"user:{n}", encode([f"i{n}"]))
    expected = {n: items(ask(client, server, history=[f"i{n}"])) for n in range(1, 41)}
    before = scrape(client, server.url)
    with ThreadPoolExecutor(40) as pool:
        with redis.hung():
            asked = {n: pool.submit(ask, client, server, user_id=n) for n in range(1, 41)}
            waiting(client, server, 40)
        found = {n: future.result() for n, future in asked.items()}
    assert {answer[1] for answer in found.values()} == {"hit"}
    assert {n: items(answer) for n, answer in found.items()} == expected
    assert (redis.calls("mget"), redis.calls("get")) == (2, 0)
    name = ("tradewind_features_batch_users_sum", ("store", "redis"))
    assert scrape(client, server.url)[name] - before.get(name, 0) == 40


def test_the_client_passes_the_user_on(server, redis):
    redis.put("user:u17", encode(["i1", "i2"]))
    with Client(server.url) as client:
        asked = [
            client.recommend(user_id="u17", deadline_ms=5000),
            client.recommend(["i1", "i2"], deadline_ms=5000),
        ]
    assert asked[0].items == asked[1].items


def test_the_document_describes_the_user_and_the_header(client, server):
    """`user_id`, that one of it and the history is needed, and every outcome."""
    document = client.get(server.url + "/openapi.json").json()
    request = document["components"]["schemas"]["RecommendRequest"]
    assert {"history", "user_id"} <= request["properties"].keys()
    assert [choice["required"] for choice in request["anyOf"]] == [["history"], ["user_id"]]
    headers = document["paths"][ROUTE]["post"]["responses"]["200"]["headers"]
    assert "late" in headers["x-features"]["schema"]["enum"]


class Asking:
    """Asks for alice all the time from two threads; every answer is a 200, and what it says of features is kept."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._over = threading.Event()
        self.outcomes: set[str] = set()

    def ask_on(self) -> None:
        with httpx2.Client(trust_env=False, timeout=60) as client:
            while not self._over.is_set():
                answer = ask(client, self._server, user_id="alice", k=3)
                if answer[1] != "hit":
                    assert items(answer) == [f"i{n}" for n in POPULAR]
                self._said.put(str(answer[1]))

    def until(self, outcome: str) -> None:
        """Wait until twenty answers in a row say this."""
        in_a_row = 0
        while in_a_row < 20:
            said = self._said.get(timeout=60)
            self.outcomes.add(said)
            in_a_row = in_a_row + 1 if said == outcome else 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(self.ask_on) for _ in range(2)]
            try:
                yield
            finally:
                self._over.set()
                for future in asked:
                    future.result()


def test_redis_may_die_and_come_back_while_it_is_asked(client, recommender, tmp_path):
    """No request fails: meanwhile they go on without features, at once, and afterwards with them, by themselves."""
    with redis_server(PASSWORD) as redis:
        redis.put("user:alice", encode(*ALICE))
        with serving(recommender, tmp_path, store=redis.url, max_ms=2000) as server:
            asking = Asking(server)
            with asking.running():
                asking.until("hit")
                redis.kill()
                asking.until("down")
                assert scrape(client, server.url)["tradewind_features_down",] == 1
                redis.start()
                redis.put("user:alice", encode(*ALICE))
                asking.until("hit")
                assert scrape(client, server.url)["tradewind_features_down",] == 0
        assert asking.outcomes <= {"hit", "failed", "down", "missing"}
        events = [line["event"] for line in server.lines if "features" in line["event"]]
        assert events == ["features are down", "features are back"]
        assert PASSWORD not in server.log.read_text()


def test_a_redis_that_hangs_costs_no_deadline(client, recommender, tmp_path):
    """Answers come in time and say that the features did not."""
    with redis_server() as redis:
        redis.put("user:alice", encode(*ALICE))
        with serving(recommender, tmp_path, slo_ms=1000, store=redis.url, max_ms=20) as server:
            while ask(client, server, user_id="alice")[1] != "hit":
                pass
            with redis.hung():
                outcomes = Counter(ask(client, server, user_id="alice")[1] for _ in range(100))
            assert outcomes["hit"] == 0
            assert outcomes["late"] + outcomes["failed"] >= 1
            assert outcomes["down"] >= 90, "they waited for a Redis that was known to hang"
            while ask(client, server, user_id="alice")[1] != "hit":
                pass
            found = scrape(client, server.url)
    asked = sum(value for name, value in found.items() if name[0] == FETCHES)
    assert found["tradewind_requests_in_deadline_total", ("route", "recommend")] == asked


def test_a_server_starts_without_its_redis_and_finds_it_later(client, recommender, tmp_path):
    with redis_server() as redis:
        redis.kill()
        with serving(recommender, tmp_path, store=f"unix://{redis.socket}", max_ms=1000) as server:
            assert ask(client, server, user_id="alice")[1] == "down"
            redis.start()
            redis.put("user:alice", encode(*ALICE))
            until_said(server, "features are back")
            assert ask(client, server, user_id="alice")[1] == "hit"


def test_a_client_that_leaves_waits_for_nobody(client, recommender, tmp_path):
    """Its request is counted as left, and is not run."""
    with (
        redis_server() as redis,
        serving(recommender, tmp_path, 60_000, store=redis.url, max_ms=60_000) as server,
    ):
        ask(client, server, user_id="alice")
        host, port = server.address.split(":")
        body = b'{"user_id": "alice"}'
        with redis.hung():
            with socket.create_connection((host, int(port))) as leaving:
                leaving.sendall(
                    b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (ROUTE.encode(), len(body), body)
                )
                waiting(client, server, 1)
            waiting(client, server, 0)
            found = scrape(client, server.url)
        assert ask(client, server, user_id="alice")[1] == "missing"
    assert found["tradewind_requests_total", ("code", "499"), ("route", "recommend")] == 1
    assert found["tradewind_requests_in_flight",] == 0


@pytest.mark.slow
def test_a_version_that_is_switched_during_the_fetch_answers_with_it(client, tmp_path, monkeypatch):
    """The request came at version 1, and is answered by 2, with what was fetched meanwhile."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    with open_store() as store, redis_server() as redis:
        for number in (1, 2):
            package = write_shop(tmp_path / str(number), metrics={"number": number})
            publish(store, package, "recommender")
        store.set_alias("recommender", "production", 1, why="the test's")
        redis.put("user:alice", encode(*ALICE))
        with (
            serving("recommender@production", tmp_path, 60_000, store=redis.url, max_ms=60_000) as server,
            ThreadPoolExecutor(1) as pool,
        ):
            assert ask(client, server, user_id="alice")[1] == "hit"
            with redis.hung():
                held = pool.submit(httpx2.post, server.url + ROUTE, json={"user_id": "alice"}, timeout=60)
                waiting(client, server, 1)
                store.set_alias("recommender", "production", 2, why="the test's")
                until_said(server, "ended")
                assert not held.done()
            answer = held.result()
    assert (answer.status_code, answer.headers["x-features"]) == (200, "hit")
    assert (answer.headers["x-tradewind-version"], answer.json()["model"]) == ("2", "shop@2")


def test_users_may_come_from_a_file(client, recommender, tmp_path):
    """With the same answers, and nothing to install."""
    path = tmp_path / "users.jsonl"
    path.write_text('{"id": "alice", "history": ["i1", "i2"], "user": {"vip": 1}}\n')
    with serving(recommender, tmp_path, store=str(path)) as server:
        expected, _ = ask(client, server, history=["i1", "i2"], user={"vip": 1})
        assert ask(client, server, user_id="alice") == (expected, "hit")
        assert ask(client, server, user_id="bob", history=["i1", "i2"], user={"vip": 1}) == (
            expected,
            "missing",
        )


def test_a_request_names_a_user_only_where_there_is_a_store(client, recommend_server):
    answer = client.post(recommend_server.url + ROUTE, json={"user_id": "u17"})
    assert answer.status_code == 400
    assert "this endpoint has no feature store" in answer.json()["error"]


@pytest.mark.parametrize(
    ("store", "before", "why"),
    [
        ("nobody.jsonl", "pass", "nobody.jsonl: the feature store cannot be read"),
        ("redis://:s3cret@h:port/0", "pass", "redis://***@h:port/0: not a URL"),
        ("redis://:s3cret@127.0.0.1:1/0?nothing=1", "pass", "redis://***@127.0.0.1:1/0?nothing=1"),
        (
            "redis://:s3cret@127.0.0.1:1/0",
            "import sys; sys.modules['redis'] = None",
            "pip install 'tradewind[redis]'",
        ),
    ],
)
def test_a_store_that_cannot_be_used_ends_the_server_with_what_to_do(
    recommender, tmp_path, store, before, why
):
    """Before any model is loaded, and without its password."""
    path = tmp_path / "endpoint.yaml"
    path.write_text(json.dumps({"model": str(recommender), "features": {"store": store}}))
    command = [sys.executable, "-c", f"{before}; {COMMAND}", "serve", str(path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_dry_run_shows_the_store_without_its_password(recommender, tmp_path):
    path = tmp_path / "endpoint.yaml"
    path.write_text(json.dumps({"model": str(recommender), "features": {"store": "redis://:s3cret@h/0"}}))
    command = [sys.executable, "-c", COMMAND, "serve", str(path), "--dry-run", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["spec"]["features"]["store"] == "redis://***@h/0"
