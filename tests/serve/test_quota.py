"""Token bucket, requests in flight and size, on a clock of the test's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.errors import RequestError
from tradewind.serve.quota import Allowance, Quota


def took(quota: Quota, now: float) -> bool:
    try:
        quota.take(now)
    except RequestError:
        return False
    return True


def test_a_burst_is_let_in_and_then_the_rate():
    """Five at once, then one each half second."""
    quota = Quota("shop", Allowance(2.0, 5.0), 0.0)
    assert [took(quota, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [took(quota, t) for t in (0.4, 0.5, 0.6, 1.0)] == [False, True, False, True]


def test_the_refusal_names_the_quota_and_when_to_come_back():
    """429, and the seconds until the next token."""
    quota = Quota("shop", Allowance(0.25, 1.0), 0.0)
    quota.take(0.0)
    with pytest.raises(RequestError, match="quota 'requests_per_s' of tenant 'shop'") as caught:
        quota.take(1.0)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3.0)


@given(steps=st.lists(st.floats(0, 3), max_size=60), rate=st.floats(0.1, 20), burst=st.integers(1, 9))
def test_never_more_than_the_burst_and_the_rate_allow(steps, rate, burst):
    """In every stretch of time, whatever the arrivals."""
    quota, now, taken = Quota("t", Allowance(rate, burst), 0.0), 0.0, []
    for step in steps:
        now += step
        if took(quota, now):
            taken.append(now)
    for i, start in enumerate(taken):
        for j, end in enumerate(taken[i:], 1):
            assert j <= burst + rate * (end - start) + 1e-6


def test_in_flight_is_counted_in_and_out():
    """A refusal takes no token of the rate's."""
    quota = Quota("shop", Allowance(1.0, 3.0, in_flight=1), 0.0)
    quota.take(0.0)
    for _ in range(9):
        with pytest.raises(RequestError, match="'in_flight'"):
            quota.take(0.0)
    quota.leave()
    quota.take(0.0)
    quota.leave()
    assert quota.in_flight == 0
    assert took(quota, 0.0)


def test_a_large_request_is_over_the_tenants_size():
    """413; the limit itself is allowed."""
    quota = Quota("shop", Allowance(max_bytes=10), 0.0)
    quota.check_size(10)
    with pytest.raises(RequestError, match="'max_request_mib'") as caught:
        quota.check_size(11)
    assert caught.value.status == 413


def test_other_limits_take_hold_at_once_and_forget_nothing():
    """What is in flight stays counted, and saved tokens are cut to the new burst."""
    quota = Quota("shop", Allowance(1.0, 100.0), 0.0)
    quota.take(0.0)
    quota.adopt(Allowance(1.0, 2.0, in_flight=9))
    assert [took(quota, 0.0) for _ in range(3)] == [True, True, False]
    assert quota.in_flight == 3
