"""When a call is slow enough for a second request."""

from tradewind.client.hedge import LEAST, Hedging


def test_nothing_is_slow_before_enough_was_seen() -> None:
    """There is no delay until LEAST answers are known; then it is their 95th percentile."""
    hedging = Hedging(0.05)
    for number in range(LEAST):
        assert hedging.begin() is None
        hedging.observe((number + 1) / 1000)
    assert hedging.begin() == 0.031


def test_hedges_stay_a_share_of_calls() -> None:
    """Of 1,000 calls that are all slow, at most 5% and the reserve of two are hedged, and the rest not even asked."""
    hedging = Hedging(0.05)
    for _ in range(LEAST):
        hedging.observe(0.001)
    allowed = sum(hedging.begin() is not None and hedging.allow() for _ in range(1000))
    assert 50 <= allowed <= 52


def test_the_delay_follows_recent_answers() -> None:
    """When every answer takes longer, slower becomes usual, and old answers are forgotten."""
    hedging = Hedging(1.0)
    for seconds in (0.001, 0.02):
        for _ in range(300):
            hedging.observe(seconds)
        assert hedging.begin() == seconds


def test_no_share_never_hedges() -> None:
    """A share of 0 turns hedging off."""
    hedging = Hedging(0.0)
    for _ in range(100):
        hedging.observe(0.001)
    assert hedging.begin() is None
