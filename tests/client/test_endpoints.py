"""Which endpoint is chosen, and what happens to one that fails; time is a number here."""

import random
from collections import Counter

from tradewind.client.endpoints import EJECT_AFTER, FIRST_EJECTION_S, MOST_EJECTION_S, Endpoints


def three() -> Endpoints:
    return Endpoints(["http://a", "http://b", "http://c"], random.Random(7))


def failing(endpoints: Endpoints, which: int, now: float = 0.0) -> None:
    for _ in range(EJECT_AFTER):
        endpoints.failed(which, now)


def test_the_less_busy_of_two_is_chosen() -> None:
    """Endpoint loads stay close together, and the busiest of three is never chosen over both others."""
    endpoints = three()
    for _ in range(300):
        endpoints.health[endpoints.pick()].outstanding += 1
    loads = [health.outstanding for health in endpoints.health]
    assert max(loads) - min(loads) <= 3
    endpoints.health[0].outstanding = 10_000
    assert 0 not in Counter(endpoints.pick() for _ in range(200))


def test_what_fails_again_and_again_is_ejected() -> None:
    """A row of failures ejects; an answer in between starts the count anew."""
    endpoints = three()
    for _ in range(EJECT_AFTER - 1):
        endpoints.failed(1, 0.0)
    endpoints.worked(1)
    endpoints.failed(1, 0.0)
    assert not endpoints.health[1].ejected
    failing(endpoints, 1)
    assert endpoints.health[1].ejected
    assert set(Counter(endpoints.pick() for _ in range(200))) == {0, 2}
    assert [shown.ejected for shown in endpoints.snapshot()] == [False, True, False]


def test_an_ejected_endpoint_is_probed_once_at_a_time_and_ever_later() -> None:
    """It is due after its pause, handed out once, and a failed probe doubles the pause up to a limit."""
    endpoints, now, pauses = three(), 100.0, []
    failing(endpoints, 2, now)
    for _ in range(8):
        pause = endpoints.health[2].back_at_s - now
        pauses.append(pause)
        assert endpoints.due_for_probe(now + pause * 0.99) == []
        now += pause
        assert endpoints.due_for_probe(now) == [2]
        assert endpoints.due_for_probe(now) == []
        endpoints.probed(2, False, now)
    assert 0.75 * FIRST_EJECTION_S <= pauses[0] <= 1.25 * FIRST_EJECTION_S
    assert pauses[-1] <= 1.25 * MOST_EJECTION_S
    assert pauses[3] > 4 * pauses[0]
    endpoints.health[2].back_at_s = now
    assert endpoints.due_for_probe(now) == [2]
    endpoints.probed(2, True, now)
    assert 2 in Counter(endpoints.pick() for _ in range(200))


def test_with_all_ejected_all_are_tried() -> None:
    """Nobody is worse off than without ejection."""
    endpoints = three()
    for which in range(3):
        failing(endpoints, which)
    assert set(Counter(endpoints.pick() for _ in range(200))) == {0, 1, 2}


def test_a_retry_keeps_to_what_it_may_ask_and_a_hedge_goes_elsewhere() -> None:
    """`allowed` binds; `avoid` is followed where there is a choice."""
    endpoints = three()
    assert {endpoints.pick(frozenset({1})) for _ in range(20)} == {1}
    assert {endpoints.pick(avoid=0) for _ in range(100)} == {1, 2}
    assert Endpoints(["http://a"], random.Random(1)).pick(avoid=0) == 0
