"""`/v1/recommend` for a user whose history and features are fetched, by a real server from a real Redis."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.serve.conftest import Server, running
from tests.serve.test_metrics import scrape
from tests.services.redis import RedisServer
from tradewind.serve.features import encode

ROUTE = "/v1/recommend"


@contextlib.contextmanager
def serving(package: pathlib.Path, home: pathlib.Path, *flags: str, **features: Any) -> Iterator[Server]:
    """Serve a package with a feature store."""
    home.mkdir(exist_ok=True)
    path = home / "endpoint.yaml"
    path.write_text(json.dumps({"model": str(package), "slo": {"latency_ms": 5000}, "features": features}))
    with running(path, home, *flags) as server:
        yield server


@pytest.fixture(scope="module")
def server(
    recommender: pathlib.Path, shared_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(recommender, tmp_path_factory.mktemp("home"), store=shared_redis.url, max_ms=5000) as server:
        yield server


def ask(client: httpx2.Client, server: Server, **body: Any) -> tuple[list[tuple[str, float]], str | None]:
    """The items with their scores, and what the answer says of the features."""
    answer = client.post(server.url + ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    return [(i["item"], i["score"]) for i in answer.json()["items"]], answer.headers.get("x-features")


def test_a_stored_history_counts_as_if_the_request_had_brought_it(client, server, redis):
    """Before the request's own events."""
    redis.put("user:u17", encode(["i1", "i2"]))
    plain, none = ask(client, server, history=["i1", "i2", "i3"])
    fetched, outcome = ask(client, server, user_id="u17", history=["i3"])
    assert fetched == plain
    assert (none, outcome) == (None, "hit")
    alone, _ = ask(client, server, user_id="u17")
    assert alone == ask(client, server, history=["i1", "i2"])[0]
    assert ask(client, server, user_id="u18", history=["i3"]) == (
        ask(client, server, history=["i3"])[0],
        "missing",
    )


def test_what_is_malformed_or_unknown_is_left_out_and_counted(client, server, redis):
    redis.put("user:1", b'{"history": 3}')
    redis.put("user:2", encode(["i1", "gone", "i2"], {"height": 3.0}))
    before = scrape(client, server.url)
    assert ask(client, server, user_id=1, history=["i3"]) == (
        ask(client, server, history=["i3"])[0],
        "malformed",
    )
    assert ask(client, server, user_id=2) == (ask(client, server, history=["i1", "i2"])[0], "hit")
    after = scrape(client, server.url)
    for name in (
        ("tradewind_features_items_dropped_total",),
        ("tradewind_features_fetches_total", ("outcome", "malformed")),
    ):
        assert after[name] - before.get(name, 0) == 1
