"""Batching as a pure function of a queue sorted by deadline, a profile and a clock."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.batching import choose, shared_rows
from tradewind.serve.profile import Profile


class Job(NamedTuple):
    """A queued request."""

    due_s: float
    rows: int = 1
    key: str = "a"
    must_run: bool = False
    rank: int = 0
    tries: int = 0


def linear_profile() -> Profile:
    """1 ms and 1 ms a row, bound a fifth above."""
    return Profile({n: 0.001 + 0.001 * n for n in (1, 2, 4, 8, 16)})


def test_everything_that_fits_runs_at_once():
    """An idle worker takes all that is queued when the earliest deadline allows it."""
    queue = [Job(1.0), Job(1.0), Job(2.0)]
    assert choose(queue, 0.0, linear_profile(), 16) == ([0, 1, 2], [])


def test_more_than_a_batch_holds_waits_for_the_next():
    """However much time there is."""
    queue = [Job(100.0, rows=3) for _ in range(6)]
    assert choose(queue, 0.0, linear_profile(), 16) == ([0, 1, 2, 3, 4], [])
    assert choose(queue, 0.0, linear_profile(), 7) == ([0, 1], [])


def test_an_urgent_request_gets_a_small_batch_when_the_others_can_wait():
    """With 6 ms left for the first, four rows (bound 6 ms) run, and the rest still make it afterwards."""
    queue = [Job(0.00601), *(Job(1.0) for _ in range(9))]
    assert choose(queue, 0.0, linear_profile(), 16) == ([0, 1, 2, 3], [])


def test_an_urgent_request_is_given_up_when_the_others_cannot_wait():
    """Where a small batch first would make sixteen others late, those run and the urgent one is given up."""
    queue = [Job(0.005), *(Job(0.0205) for _ in range(16))]
    assert choose(queue, 0.0, linear_profile(), 16) == (list(range(1, 17)), [0])


def test_an_urgent_request_is_given_up_for_those_to_come_where_others_were_refused():
    """Four rows and six take 12 ms, nine without it 10: 8% more a second. Not for next to nothing."""
    queue = [Job(0.00601), *(Job(1.0) for _ in range(9))]
    assert choose(queue, 0.0, linear_profile(), 16, saturated=True) == (list(range(1, 10)), [0])
    hardly_any = Profile({n: 0.0001 + 0.001 * n for n in (1, 2, 4, 8, 16)})
    assert choose(queue, 0.0, hardly_any, 16, saturated=True) == ([0, 1, 2, 3], [])


def test_one_that_lost_its_run_is_not_given_up_for_others():
    """Three rows (bound 4.8 ms) with it first, although that makes the sixteen late."""
    queue = [Job(0.005, tries=1), *(Job(0.0205) for _ in range(16))]
    for saturated in (False, True):
        assert choose(queue, 0.0, linear_profile(), 16, saturated=saturated) == ([0, 1, 2], [])


def test_under_overload_batches_stay_full():
    """Deadlines 1 ms apart, as arrivals faster than the worker leave them: one full batch runs, not a few urgent."""
    queue = [Job(0.004 + 0.001 * i) for i in range(40)]
    run, late = choose(queue, 0.0, linear_profile(), 16)
    assert len(run) == 16
    assert late == list(range(run[0]))
    assert queue[run[0]].due_s >= linear_profile().bound_s(16) > queue[run[0] - 1].due_s


def test_what_cannot_be_in_time_is_given_up_and_does_not_shrink_the_batch():
    """A request with less left than it takes alone is late; the next one sets the size."""
    queue = [Job(0.0015), Job(1.0), Job(1.0)]
    assert choose(queue, 0.0, linear_profile(), 16) == ([1, 2], [0])


def test_a_probe_runs_even_when_it_will_be_late():
    """A request admitted to learn the latency is not given up."""
    assert choose([Job(0.0001, must_run=True)], 0.0, linear_profile(), 16) == ([0], [])


def test_only_equal_keys_share_a_batch():
    """Requests of another shape stay in the queue, in order."""
    queue = [Job(1.0), Job(1.1, key="b"), Job(1.2)]
    assert choose(queue, 0.0, linear_profile(), 16).run == [0, 2]


def test_a_request_larger_than_what_fits_runs_alone():
    """The first request always runs, even if its rows exceed what its deadline would allow."""
    queue = [Job(0.0075, rows=6), Job(1.0)]
    assert choose(queue, 0.0, linear_profile(), 16).run == [0]


@pytest.mark.parametrize(
    ("fixed_s", "patience_s", "rows"),
    [(0.0, 1.0, 16), (0.0, 0.0193, 8), (0.0, 0.0001, 1), (0.001, 0.0001, 9), (0.1, 0.0001, 16)],
    ids=["patient", "two-of-eight", "impatient", "worth-it", "all-that-is-worth-it"],
)
def test_shared_batches_fit_twice_into_a_requests_patience(fixed_s, patience_s, rows):
    """1 ms a row and a fifth for the bound; with something fixed beside it small batches are not worth it."""
    profile = Profile({n: fixed_s + 0.001 * n for n in (1, 2, 4, 8, 16)})
    assert shared_rows(profile, patience_s) == rows


@pytest.mark.parametrize("largest_s", [0.008, 0.009, 0.03])
def test_shared_batches_are_no_larger_for_what_no_request_can_wait_for(largest_s):
    """1 ms a row but for sixteen, however quick those are: at most seven are in time, and three twice."""
    profile = Profile({1: 0.001, 2: 0.002, 4: 0.004, 8: 0.008, 16: largest_s})
    assert shared_rows(profile, 0.0093) == 3


def test_an_empty_queue_asks_for_nothing():
    """No work, no action."""
    assert choose([], 0.0, linear_profile(), 16) == ([], [])


jobs = st.builds(
    Job, st.floats(0, 0.05), st.integers(1, 8), st.sampled_from("ab"), st.just(False), st.integers(0, 2)
)


@given(queue=st.lists(jobs, max_size=40).map(lambda q: sorted(q, key=lambda j: (j.rank, j.due_s))))
def test_choice_properties(queue):
    """Work-conserving, within the batch limit, one key, earliest first, nothing both run and given up."""
    profile = linear_profile()
    run, late = choose(queue, 0.0, profile, 16)
    rows = sum(queue[i].rows for i in run)
    assert not set(run) & set(late)
    assert rows <= 16
    assert len({queue[i].key for i in run}) <= 1
    assert run == sorted(run)
    for i in late:
        hopeless = queue[i].due_s < profile.latency_s(queue[i].rows)
        assert hopeless or (run and queue[i].due_s < profile.bound_s(16))
    if any(job.due_s >= profile.latency_s(job.rows) for job in queue):
        assert run
    if len(run) > 1:
        assert profile.latency_s(rows) <= queue[run[0]].due_s
