"""How long a silent host is waited for."""

from hypothesis import given
from hypothesis import strategies as st

from tradewind.agent.lease import LONGEST_S, Lease

LEAST_S = 0.25


def learnt(*silences: float) -> Lease:
    """A lease after these silences, one after the other, heard of for long enough."""
    lease, now = Lease(LEAST_S), 0.0
    lease.begin(now)
    for _ in range(400):
        for silent_s in silences:
            now += silent_s
            lease.heard(silent_s, now)
    return lease


def test_a_host_that_is_not_known_yet_has_the_longest() -> None:
    lease = Lease(LEAST_S)
    lease.begin(0.0)
    lease.heard(0.1, 0.1)
    assert lease.seconds == LONGEST_S


def test_who_is_heard_often_is_missed_soon() -> None:
    assert learnt(0.05).seconds == LEAST_S
    assert 0.3 < learnt(0.12).seconds < 0.4


def test_one_long_silence_counts_for_a_while_and_is_forgotten() -> None:
    lease = learnt(0.1)
    lease.heard(0.6, now := 1000.0)
    assert lease.seconds > 1.5
    for _ in range(400):
        lease.heard(0.1, now := now + 0.1)
    assert lease.seconds < 0.35


def test_a_host_that_was_there_all_along_is_waited_for_twice_as_long() -> None:
    lease = learnt(0.1)
    before = lease.seconds
    lease.was_too_short()
    assert lease.seconds == 2 * before
    for _ in range(5):
        lease.was_too_short()
    assert lease.seconds == LONGEST_S


@given(st.lists(st.floats(0.0, 60.0), min_size=1, max_size=50))
def test_it_is_between_its_bounds_and_beyond_the_last_silence_that_it_allows(silences: list[float]) -> None:
    lease = learnt(*silences)
    assert LEAST_S <= lease.seconds <= LONGEST_S
    assert lease.seconds >= min(LONGEST_S, silences[-1])
