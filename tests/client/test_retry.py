"""What is tried again, when and where; time is a number here."""

import pytest

from tradewind.client.errors import (
    BadRequest,
    BrokenAnswer,
    ClientError,
    DeadlineExceeded,
    Denied,
    Refused,
    ServerFailed,
    Unreachable,
)
from tradewind.client.retry import Next, Retry, RetryPolicy

POLICY = RetryPolicy(max_tries=3, first_pause_s=0.01, most_pause_s=0.015)


@pytest.mark.parametrize("kind", [BadRequest, Denied, BrokenAnswer, DeadlineExceeded, ServerFailed])
def test_only_what_is_safe_is_tried_again(kind: type[ClientError]) -> None:
    """An answer that had begun, a wrong request and a failed one are final."""
    assert Retry(POLICY, 2, 100.0).after(kind("no"), 0, 1.0, 0.5) is None


def test_another_endpoint_is_asked_at_once() -> None:
    """The one that failed rests, the other need not wait for it."""
    assert Retry(POLICY, 2, 100.0).after(Unreachable("no"), 0, 1.0, 0.5) == Next(1.0, frozenset({1}))


def test_a_single_endpoint_rests_twice_as_long_each_time_up_to_a_limit() -> None:
    """Pauses double until their limit, scaled by jitter, and tries end."""
    retry = Retry(POLICY, 1, 100.0)
    first = retry.after(Unreachable("no"), 0, 1.0, 0.5)
    second = retry.after(Unreachable("no"), 0, 2.0, 0.5)
    assert first == Next(pytest.approx(1.005), frozenset({0}))
    assert second == Next(pytest.approx(2.0075), frozenset({0}))
    assert retry.after(Unreachable("no"), 0, 3.0, 0.5) is None
    assert retry.tries == 3


def test_retry_after_is_honoured_inside_the_deadline() -> None:
    """A refusal says when to come back; beyond the deadline there is no point."""
    refused = Refused("busy", retry_after_s=2.0)
    assert Retry(POLICY, 1, 4.0).after(refused, 0, 1.0, 0.9) == Next(3.0, frozenset({0}))
    assert Retry(POLICY, 1, 3.0).after(refused, 0, 1.0, 0.9) is None
    assert Retry(POLICY, 1, 0.5).after(Unreachable("no"), 0, 1.0, 0.0) is None


def test_both_refused_the_earlier_is_asked_when_it_said() -> None:
    """Each endpoint's own Retry-After counts for it alone."""
    retry = Retry(POLICY, 2, 100.0)
    assert retry.after(Refused("busy", retry_after_s=5.0), 0, 1.0, 0.5) == Next(1.0, frozenset({1}))
    assert retry.after(Refused("busy", retry_after_s=2.0), 1, 1.5, 0.5) == Next(3.5, frozenset({1}))
