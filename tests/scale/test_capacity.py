"""Capacity is found where the server's own limit is."""

import pytest

from tests.services.injected import injected_server
from tradewind.errors import TradewindError
from tradewind.scale.capacity import Level, _climb, find_capacity


def test_a_level_cannot_exceed_what_its_delay_allows() -> None:
    """With 20 ms an answer, n connections give at most 50 n per second, and more give more."""
    with injected_server(delay_ms=20) as server:
        capacity = find_capacity(
            server.url, deadline_ms=1000, duration_s=0.5, warmup_s=0.1, concurrencies=(1, 4)
        )
    assert [level.concurrency for level in capacity.levels] == [1, 4]
    for level in capacity.levels:
        assert 0.3 * 50 * level.concurrency < level.goodput_per_s <= 50 * level.concurrency * 1.1
    assert capacity.per_s == capacity.levels[1].goodput_per_s


def test_the_climb_stops_after_two_flat_levels() -> None:
    """One flat level is passed over, two in a row end the search, and no further level is tried."""
    rates = iter([100.0, 101.0, 180.0, 181.0, 182.0, 400.0])

    def measure(concurrency: int) -> Level:
        per_s = next(rates)
        return Level(
            concurrency=concurrency, answered_per_s=per_s, goodput_per_s=per_s, p50_ms=1, p99_ms=1, failed=0
        )

    levels = list(_climb(measure, (1, 2, 4, 8, 16, 32)))
    assert [level.concurrency for level in levels] == [1, 2, 4, 8, 16]


def test_answers_past_the_deadline_are_not_capacity() -> None:
    """A server slower than the deadline has no capacity, and the message says so."""
    with injected_server(delay_ms=30) as server, pytest.raises(TradewindError, match="inside 5 ms"):
        find_capacity(server.url, deadline_ms=5, duration_s=0.2, warmup_s=0, concurrencies=(1,))


def test_an_endpoint_that_is_down_is_named() -> None:
    """Nobody listening is an error with the URL in it."""
    with injected_server() as server:
        url = server.url
    with pytest.raises(TradewindError, match="is the endpoint up"):
        find_capacity(url, duration_s=0.1, concurrencies=(1,))
