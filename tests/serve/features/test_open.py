"""Which store an endpoint has, and for how long a request waits for it."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry

from tradewind.serve.features import Fetched, Outcome
from tradewind.serve.features import open as opening
from tradewind.serve.features.open import SOURCES, FeatureStore
from tradewind.spec import FeatureSpec
from tradewind.spec.features import SCHEMES


class Told:
    """A source that says until when it may take."""

    def __init__(self) -> None:
        self.until_s: list[float] = []

    def fetch(self, user: str, until_s: float) -> Fetched:
        self.until_s.append(until_s)
        return Fetched(Outcome.MISSING)

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def test_every_address_that_a_spec_takes_has_a_source():
    assert SOURCES.keys() == {"", *SCHEMES}


def test_a_fetch_ends_with_the_endpoints_limit_or_the_requests_whichever_is_first(monkeypatch):
    told = Told()
    monkeypatch.setitem(opening.SOURCES, "", lambda spec, metrics: told)
    store = FeatureStore(FeatureSpec(store="users.jsonl", max_ms=50_000), CollectorRegistry())
    began = time.monotonic()
    store.fetch("u", began + 10.0)
    store.fetch("u", began + 100.0)
    assert told.until_s[0] == began + 10.0
    assert began + 50.0 <= told.until_s[1] <= time.monotonic() + 50.0


@pytest.mark.parametrize(("max_ms", "limit_s"), [(1.0, 0.05), (20.0, 0.08)])
def test_a_round_trip_may_take_longer_than_a_request_waits(max_ms, limit_s):
    """So that one slow answer is not an outage; where nobody answers at all, that is soon known."""
    pytest.importorskip("redis", reason="REDIS IS NOT TESTED: its client is not installed")

    async def scenario() -> None:
        store = FeatureStore(FeatureSpec(store="redis://127.0.0.1:1/0", max_ms=max_ms), CollectorRegistry())
        assert store._source._limit_s == pytest.approx(limit_s)
        await store.start()
        assert store.fetch("u", time.monotonic() + 1.0) == Fetched(Outcome.DOWN)
        await store.close()

    asyncio.run(scenario())
