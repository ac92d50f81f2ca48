"""The level of a batch, as a pure function of the queue, the profiles and what comes meanwhile."""

import pytest

from tests.serve.test_batching import Job
from tradewind.serve.levels import Pressure, coming_rows, leaves_room, pick
from tradewind.serve.profile import Profile

FULL = Profile({n: 0.010 + 0.010 * n for n in (1, 2, 4)})
LESS = Profile({n: 0.005 + 0.002 * n for n in (1, 2, 4)})
LEAST = Profile({n: 0.001 + 0.0001 * n for n in (1, 2, 4)})
LADDER = [FULL, LESS, LEAST]
QUIET = Pressure(0.0, 1.0)


@pytest.mark.parametrize(
    ("due_s", "level"),
    [
        ([0.1], 0),
        ([0.0239], 1),  # the full level's bound for one is 24 ms
        ([0.0083], 2),
        ([0.0001], 2),  # nothing helps; the cheapest loses least
        ([0.0601] * 4, 0),
        ([0.0599] * 4, 1),
        ([0.1] * 8, 1),  # the second batch would end after 110 ms
        ([0.1] * 4 + [0.2] * 4, 0),
        ([1.0] * 7 + [0.001], 2),
    ],
)
def test_the_best_level_that_clears_the_queue_is_taken(due_s, level):
    """Not the best that its first request can afford."""
    assert pick([Job(due) for due in due_s], 0.0, LADDER, QUIET) == level


def test_a_level_must_leave_room_for_what_comes_meanwhile():
    """At the next level; the more comes, the lower."""
    queue = [Job(1.0)]
    rates = (0.0, 30.0, 100.0, 300.0, 50000.0)
    assert [pick(queue, 0.0, LADDER, Pressure(rate, 0.05)) for rate in rates] == [0, 0, 1, 1, 2]
    assert leaves_room(0.02, LESS, Pressure(0.0, 0.03))
    assert not leaves_room(0.03, LESS, Pressure(0.0, 0.03))


def test_what_comes_may_come_in_a_burst():
    """As many as come on average would fit, with two deviations more they do not."""
    assert [coming_rows(expected) for expected in (0.0, 0.25, 4.0, 25.0, 100.0)] == [0, 1, 8, 35, 120]
    busy_s = 0.024  # the full level's bound for one
    average = LESS.bound_s(3)
    assert not leaves_room(busy_s, LESS, Pressure(2 / busy_s, busy_s + average))
    assert leaves_room(busy_s, LESS, Pressure(2 / busy_s, busy_s + LESS.bound_s(4) + LESS.bound_s(1)))


def test_one_level_is_no_choice():
    """Whatever the pressure."""
    assert pick([Job(0.0)], 0.0, [FULL], Pressure(1e9, 0.0)) == 0


def test_a_probe_does_not_lower_the_level():
    """A request that is admitted to learn how long the model takes is late anyhow."""
    assert pick([Job(0.001, must_run=True), Job(0.1)], 0.0, LADDER, QUIET) == 0
