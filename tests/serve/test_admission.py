"""Admission as a pure function of load, profile and clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.admission import Load, decide, surely_in_time, waited_too_long
from tradewind.serve.profile import Profile


def flat_profile() -> Profile:
    """Ten rows in a batch; 10 ms whatever the size, bound 12 ms."""
    return Profile({1: 0.010, 10: 0.010})


@pytest.mark.parametrize(
    ("budget_s", "load", "admitted"),
    [
        (0.050, Load(free_at_s=100.0, rows_ahead=0), True),
        (0.011, Load(free_at_s=100.0, rows_ahead=0), False),  # shorter than one run's bound
        (0.021, Load(free_at_s=100.010, rows_ahead=0), False),  # the worker is busy for 10 ms
        (0.023, Load(free_at_s=100.010, rows_ahead=0), True),
        (0.023, Load(free_at_s=100.010, rows_ahead=9), True),  # rides in the same batch
        (0.023, Load(free_at_s=100.010, rows_ahead=10), False),  # one full batch goes first
        (0.023, Load(free_at_s=100.010, rows_ahead=10, num_workers=2), True),  # on the other worker
        (0.035, Load(free_at_s=100.010, rows_ahead=10), True),
        (0.037, Load(free_at_s=90.0, rows_ahead=20), True),  # a time in the past means now
        (0.011, Load(free_at_s=100.0, rows_ahead=0, idle=True), True),  # the fastest run would make it
        (0.009, Load(free_at_s=100.0, rows_ahead=0, idle=True), False),  # not even that one
        (0.001, Load(free_at_s=100.0, rows_ahead=0, idle=True, unmeasured_s=1.1), True),  # to measure again
        (0.001, Load(free_at_s=100.0, rows_ahead=0, unmeasured_s=1.1), False),  # work is under way
    ],
)
def test_a_request_is_admitted_when_its_predicted_completion_meets_its_deadline(budget_s, load, admitted):
    """Work ahead, the busy worker and the request's own batch all count."""
    assert decide(100.0, 100.0 + budget_s, 1, load, flat_profile()).admit is admitted


def test_a_refusal_says_how_long_to_stay_away():
    """The wait is how much too late the request would have been."""
    verdict = decide(100.0, 100.010, 1, Load(free_at_s=100.0, rows_ahead=100), flat_profile())
    assert not verdict.admit
    assert verdict.retry_after_s == pytest.approx(verdict.finish_s - 100.010)
    assert verdict.finish_s == pytest.approx(100.0 + 10 * 0.012 + 0.012)


def test_rows_count_not_requests():
    """A request of eight rows beside five does not fit one batch of ten, and is charged for the next."""
    load = Load(free_at_s=100.0, rows_ahead=5)
    small = decide(100.0, 100.015, 5, load, flat_profile())
    large = decide(100.0, 100.015, 8, load, flat_profile())
    assert small.admit
    assert not large.admit


def test_a_batch_is_expected_to_grow_as_large_as_the_one_before():
    """What rides with a request until the worker is free makes its batch slower, and is foreseen."""
    profile = Profile({1: 0.010, 10: 0.030})
    alone = Load(free_at_s=100.010, rows_ahead=0)
    assert decide(100.0, 100.030, 1, alone, profile).admit
    assert not decide(100.0, 100.030, 1, alone._replace(rows_running=10), profile).admit


@pytest.mark.parametrize(("waited_s", "refused"), [(0.0, False), (0.009, False), (0.011, True), (1.0, True)])
def test_a_request_read_late_is_turned_away(waited_s, refused):
    """More than a tenth of 50 ms, beyond what clocks may be wrong by, and a request is refused unread."""
    assert waited_too_long(waited_s, 0.050) is refused


@given(
    rows=st.integers(1, 10),
    ahead=st.integers(0, 60),
    waiting=st.integers(0, 40),
    running=st.integers(0, 10),
    free_at_s=st.floats(99.9, 100.1),
    num_workers=st.integers(1, 3),
    crowding=st.sampled_from([0.0, 0.5, 2.0]),
    budget_s=st.floats(0.0, 2.0),
)
def test_what_is_surely_in_time_is_admitted_and_ends_in_time(
    rows, ahead, waiting, running, free_at_s, num_workers, crowding, budget_s
):
    """The quick answer never says yes where the whole question would not."""
    due_s = 100.0 + budget_s
    profile = Profile({1: 0.010, 4: 0.020, 10: 0.025})
    load = Load(free_at_s, ahead, crowding=crowding, rows_running=running, num_workers=num_workers)
    if surely_in_time(
        100.0, due_s, ahead + waiting, free_at_s, profile, num_workers, 10, crowded=crowding > 0
    ):
        verdict = decide(100.0, due_s, rows, load, profile)
        assert verdict.admit
        assert verdict.finish_s <= due_s + 1e-9


def test_a_request_before_which_little_waits_is_surely_in_time():
    """One batch ahead, the rest of another beside it: 12 ms each."""
    profile = flat_profile()
    assert surely_in_time(100.0, 100.025, 9, 100.0, profile, 1, 10, crowded=False)
    assert not surely_in_time(100.0, 100.025, 10, 100.0, profile, 1, 10, crowded=False)
    assert not surely_in_time(100.0, 100.025, 9, 100.0, profile, 1, 10, crowded=True)
