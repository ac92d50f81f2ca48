"""Batching as a pure function of a queue sorted by deadline, a profile and a clock."""

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tradewind.serve.batching import choose
from tradewind.serve.profile import Profile


class Job(NamedTuple):
    """A queued request."""

    deadline_s: float
    rows: int = 1
    key: str = "a"
    must_run: bool = False


def linear_profile() -> Profile:
    """1 ms and 1 ms a row, bound a fifth above."""
    return Profile({n: 0.001 + 0.001 * n for n in (1, 2, 4, 8, 16)})


def test_everything_that_fits_runs_at_once():
    """An idle worker takes all that is queued when the earliest deadline allows it."""
    queue = [Job(1.0), Job(1.0), Job(2.0)]
    assert choose(queue, 0.0, linear_profile(), 16) == ([0, 1, 2], [])


def test_the_earliest_deadline_sets_the_size():
    """With 6 ms left for the first, four rows (bound 6 ms) run and the rest wait."""
    queue = [Job(0.00601), *(Job(1.0) for _ in range(9))]
    assert choose(queue, 0.0, linear_profile(), 16).run == [0, 1, 2, 3]


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


def test_an_empty_queue_asks_for_nothing():
    """No work, no action."""
    assert choose([], 0.0, linear_profile(), 16) == ([], [])


jobs = st.builds(Job, st.floats(0, 0.05), st.integers(1, 8), st.sampled_from("ab"))


@given(queue=st.lists(jobs, max_size=40).map(lambda q: sorted(q, key=lambda j: j.deadline_s)))
def test_choice_properties(queue):
    """Work-conserving, within the batch limit, one key, earliest first, nothing both run and given up."""
    run, late = choose(queue, 0.0, linear_profile(), 16)
    assert not set(run) & set(late)
    assert sum(queue[i].rows for i in run) <= 16
    assert len({queue[i].key for i in run}) <= 1
    assert all(queue[i].deadline_s < linear_profile().latency_s(queue[i].rows) for i in late)
    if len(late) < len(queue):
        assert run[0] == len(late)
    if len(run) > 1:
        rows = sum(queue[i].rows for i in run)
        assert linear_profile().bound_s(rows) <= queue[run[0]].deadline_s
