"""The profile: interpolation, monotony, and following a machine that becomes slower or faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.profile import WORTH, Profile, batch_sizes, measure


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_sizes_are_powers_of_two_and_the_largest_batch(max_batch, sizes):
    """The sizes measured at start-up end in the largest batch."""
    assert batch_sizes(max_batch) == sizes


def test_measure_takes_the_median_after_a_warm_up():
    """One slow first call and one outlier do not show in the measurement."""
    seconds = {1: iter([9.0, 1.0, 1.1, 5.0, 0.9, 1.0]), 2: iter([9.0, 2.0, 2.0, 2.0, 2.0, 2.0])}
    now = 0.0

    def run(size: int) -> None:
        nonlocal now
        now += next(seconds[size])

    assert measure(run, [1, 2], lambda: now) == pytest.approx({1: 1.0, 2: 2.0})


def test_without_repeats_every_size_is_warmed_up_and_none_measured():
    """What it takes is known already."""
    ran = []
    assert measure(ran.append, [1, 2, 4], iter([]).__next__, repeats=0) == {}
    assert ran == [1, 2, 4]


def test_latency_between_measured_sizes_is_interpolated():
    """Half-way between two measured sizes lies half-way between their latencies."""
    profile = Profile({1: 1.0, 2: 2.0, 4: 3.0})
    assert profile.latency_s(3) == pytest.approx(2.5)
    assert profile.latency_s(8) == pytest.approx(6.0)


@given(
    points=st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4),
    observed=st.lists(st.tuples(st.integers(1, 8), st.floats(1e-5, 2.0)), max_size=30),
)
def test_latency_and_bound_never_decrease_with_size(points, observed):
    """Whatever is observed, a larger batch is never expected to be faster, nor its bound below its mean."""
    profile = Profile(dict(zip([1, 2, 4, 8], points, strict=True)))
    for size, seconds in observed:
        profile.observe(size, seconds)
    for size in range(1, 8):
        assert profile.latency_s(size) <= profile.latency_s(size + 1)
        assert profile.bound_s(size) >= profile.latency_s(size)


def test_observations_move_the_profile_to_what_is_true_now():
    """After a lasting slow-down the mean reaches the new latency and the bound comes back close to it."""
    profile = Profile({1: 0.01, 2: 0.01})
    for _ in range(200):
        profile.observe(2, 0.03)
    assert profile.latency_s(2) == pytest.approx(0.03, rel=0.01)
    assert profile.bound_s(2) < 0.033


@given(budget=st.floats(0, 2.0), limit=st.integers(1, 8))
def test_largest_within_is_the_largest_that_fits(budget, limit):
    """The size returned fits the budget and the next one does not."""
    profile = Profile({1: 0.2, 2: 0.3, 4: 0.5, 8: 1.0})
    size = profile.largest_within(budget, limit)
    assert size == 0 or profile.bound_s(size) <= budget
    assert size == limit or profile.bound_s(size + 1) > budget


@given(points=st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4), limit=st.integers(1, 8))
def test_worth_is_the_smallest_batch_that_does_nearly_what_the_best_does(points, limit):
    """Also where larger batches than the best do less a second."""
    profile = Profile(dict(zip([1, 2, 4, 8], points, strict=True)))
    rates = [rows / profile.latency_s(rows) for rows in range(1, limit + 1)]
    worth = next(rows for rows, rate in enumerate(rates, 1) if rate >= WORTH * max(rates))
    assert profile.worth_within(limit) == worth
    assert limit < 8 or profile.worth_rows == worth


def test_one_stall_is_not_taken_for_a_trend():
    """A run of a hundred times the usual moves the expectation no further than one of three times does."""
    stalled, slow = Profile({1: 0.01, 2: 0.01}), Profile({1: 0.01, 2: 0.01})
    stalled.observe(2, 1.0)
    slow.observe(2, 0.03)
    assert stalled.points == slow.points
    assert stalled.bound_s(2) == slow.bound_s(2) < 0.03


def test_what_is_measured_now_corrects_what_was_measured_before():
    """A small batch that was slow once does not make large ones slow for ever: no larger batch is faster."""
    profile = Profile({1: 0.001, 8: 0.002})
    for _ in range(50):
        profile.observe(1, 0.02)
    assert profile.latency_s(8) > 0.01
    for _ in range(100):
        profile.observe(8, 0.002)
    assert profile.latency_s(1) <= profile.latency_s(8) == pytest.approx(0.002, rel=0.05)


def test_what_is_kept_at_hand_is_what_is_measured():
    """Of the largest batch, as it is now."""
    profile = Profile({1: 0.001, 4: 0.002})
    for seconds in (0.002, 0.005, 0.003):
        profile.observe(4, seconds)
        assert profile.full_s == profile.bound_s(4)
        assert profile.row_s == profile.latency_s(4) / 4
    assert profile.row_s > 0.002 / 4


@given(
    mine=st.lists(st.floats(1e-4, 1.0), min_size=3, max_size=3),
    other=st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4),
)
def test_what_has_less_to_do_is_no_slower_at_any_size(mine, other):
    """In mean and in bound, with neither ever decreasing, and what was faster stays so."""
    before = Profile(dict(zip([1, 4, 8], mine, strict=True)))
    profile = Profile(dict(zip([1, 4, 8], mine, strict=True)))
    limit = Profile(dict(zip([1, 2, 4, 8], other, strict=True)))
    profile.no_slower_than(limit)
    for size in (1, 4, 8):
        assert profile.latency_s(size) == min(before.latency_s(size), limit.latency_s(size))
        assert profile.bound_s(size) <= limit.bound_s(size) * (1 + 1e-9)
    for size in range(1, 8):
        assert profile.latency_s(size) <= profile.latency_s(size + 1)
