"""Where the wall time of a run went: every second has one name, and the right one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.diagnose.ledger import BUCKETS, Ledger, newest_s, rank_ledgers, run_ledger
from tradewind.store import Attempt, Event


def attempt(index: int, started_s: float | None, ended_s: float | None = None) -> Attempt:
    """One attempt."""
    return Attempt(run="r", index=index, started_s=started_s, ended_s=ended_s)


def event(attempt: int, t_s: float, kind: str, rank: int | None = None, **data: Any) -> Event:
    """One event."""
    return Event(run="r", attempt=attempt, t_s=t_s, kind=kind, rank=rank, data=data)


def meter(attempt: int, t_s: float, rank: int = 0, **buckets: float) -> Event:
    """A worker's own ledger, written at `t_s`; its process began when the buckets say."""
    return event(attempt, t_s, "ledger", rank, buckets=buckets, wall_s=sum(buckets.values()))


def named(ledger: Ledger) -> Ledger:
    """The buckets that hold any time."""
    return {name: round(seconds, 9) for name, seconds in ledger.items() if abs(seconds) > 1e-9}


def test_a_quiet_run() -> None:
    """Waiting to be started, starting, restoring, working and ending are told apart."""
    events = [
        event(0, 2.0, "attempt_started", restarts=0),
        meter(0, 13.0, startup=2, restore=1, compute=4, communication=1, data_wait=1, checkpoint_stall=1),
    ]
    found = run_ledger(events, [attempt(0, 2.0, 14.0)], created_s=0.0, ended_s=14.0)
    assert named(found) == {
        "pending": 2, "startup": 3, "restore": 1, "compute": 4, "communication": 1,
        "data_wait": 1, "checkpoint_stall": 1, "other": 1,
    }  # fmt: skip


KILLED = [
    event(0, 0.0, "attempt_started", restarts=0),
    event(0, 4.0, "step", 0, step=1),
    meter(0, 10.0, startup=2, compute=6, data_wait=1),
    event(0, 12.0, "step", 0, step=10, last=True),
    event(0, 15.0, "failure", 0),
    event(1, 16.0, "attempt_started", restarts=1),
    event(1, 20.0, "step", 0, step=6),
    event(1, 23.0, "caught_up", 0, step=10),
    meter(1, 26.0, startup=1, restore=1, compute=7),
    event(1, 26.0, "step", 0, step=13, last=True),
]


def test_a_kill_and_what_it_cost() -> None:
    """Detection, restart, restore and recompute have their own names, and new work its own again."""
    attempts = [attempt(0, 0.0, 15.2), attempt(1, 16.0, 26.5)]
    found = run_ledger(KILLED, attempts, ended_s=26.5)
    assert named(found) == pytest.approx({
        "startup": 3,  # 0 to 1 until the process was there, and 2 that it says itself
        "compute": 6 + 2 * 6 / 7 + 3,  # measured; 10 to 12 in the same mix; 23 to 26
        "data_wait": 1 + 2 * 1 / 7,
        "detection": 3,  # 12 to 15
        "restart": 1 + 1 + 1,  # 15 to 16, 16 to 17, and the startup of the new process
        "restore": 1,
        "recompute": 4,  # 19 to 23
        "other": 0.5,
    })  # fmt: skip
    assert sum(found.values()) == pytest.approx(26.5)


def test_until_everything_is_regained_all_is_recompute() -> None:
    """An attempt that died before it had caught up did nothing new."""
    events = [*KILLED[:7], meter(1, 21.0, startup=1, restore=1, compute=2), event(1, 22.0, "step", 0, step=8)]
    found = run_ledger(events, [attempt(0, 0.0), attempt(1, 16.0)], ended_s=22.0)
    assert found["recompute"] == pytest.approx(3)
    assert found["compute"] == pytest.approx(6 + 12 / 7)


def test_resuming_at_the_last_step_recomputes_nothing() -> None:
    """Steps beyond what was reached are new work, however soon after the restart."""
    events = [*KILLED[:6], event(1, 20.0, "step", 0, step=11), meter(1, 26.0, startup=1, compute=8)]
    found = run_ledger(events, [attempt(0, 0.0), attempt(1, 16.0)], ended_s=26.0)
    assert found["recompute"] == 0


def test_what_was_reached_is_kept_over_several_attempts() -> None:
    """The third attempt regains what the first had reached, though the second never got there."""
    events = [
        *KILLED[:7],
        event(1, 21.0, "failure", 0),
        event(2, 22.0, "attempt_started", restarts=2),
        event(2, 24.0, "step", 0, step=7),
        event(2, 28.0, "caught_up", 0, step=10),
        meter(2, 30.0, startup=1, compute=7),
        event(2, 30.0, "step", 0, step=12),
    ]
    attempts = [attempt(0, 0.0), attempt(1, 16.0), attempt(2, 22.0)]
    assert run_ledger(events, attempts, ended_s=30.0)["recompute"] == pytest.approx(28.0 - 23.0)


def test_a_script_without_a_meter_is_read_from_its_steps() -> None:
    """Where only steps are journaled, the time between the first and the last is compute."""
    events = [event(0, 3.0, "step", 0, step=1), event(0, 9.0, "step", 0, step=7)]
    assert named(run_ledger(events, [attempt(0, 1.0)], created_s=0.0, ended_s=10.0)) == {
        "pending": 1, "startup": 2, "compute": 6, "other": 1,
    }  # fmt: skip


def test_a_script_that_says_nothing_has_no_names() -> None:
    """What nothing is known of is `other`, also before a failure."""
    events = [event(0, 6.0, "failure", 0)]
    assert named(run_ledger(events, [attempt(0, 1.0), attempt(1, 7.0)], created_s=0.0, ended_s=9.0)) == {
        "pending": 1, "other": 5 + 2, "restart": 1,
    }  # fmt: skip


def test_a_run_that_was_never_started_was_pending() -> None:
    """Without an attempt all of the time was waiting; without any time there is nothing to say."""
    assert named(run_ledger([], [], created_s=1.0, ended_s=5.0)) == {"pending": 4}
    assert rank_ledgers([], []) == {}
    assert run_ledger([], []) == dict.fromkeys(BUCKETS, 0.0)


def test_after_the_last_failure_nothing_is_restarted() -> None:
    """The time that a run takes to end after its last failure is not called a restart."""
    found = run_ledger(KILLED[:5], [attempt(0, 0.0, 17.0)], ended_s=17.0)
    assert (found["restart"], found["other"], found["detection"]) == (0, 2, 3)


def test_the_run_is_the_mean_of_its_ranks() -> None:
    """Each rank adds up to the wall time by itself, and the run is their mean."""
    events = [meter(0, 10.0, 0, compute=10), meter(0, 10.0, 1, compute=4, data_wait=6)]
    attempts = [attempt(0, 0.0, 10.0)]
    ranks = rank_ledgers(events, attempts, ended_s=10.0)
    assert {rank: named(ledger) for rank, ledger in ranks.items()} == {
        0: {"compute": 10},
        1: {"compute": 4, "data_wait": 6},
    }
    assert named(run_ledger(events, attempts, ended_s=10.0)) == {"compute": 7, "data_wait": 3}


def test_a_run_that_goes_on_is_counted_until_the_newest_thing_known() -> None:
    """Without an end the ledger stops at the newest event or attempt."""
    attempts = [attempt(0, 1.0, 9.0), attempt(1, 10.0)]
    assert newest_s([], attempts, 0.0) == 10.0
    assert newest_s([event(1, 12.0, "step", 0, step=1)], attempts, 0.0) == 12.0
    assert newest_s([], [], 3.0) == 3.0
    assert sum(run_ledger([], attempts, created_s=0.0).values()) == pytest.approx(10.0)


TIMES = st.floats(0, 1000, allow_subnormal=False)
SECONDS = st.floats(0, 200, allow_subnormal=False)
RANKS = st.sampled_from([None, 0, 1, 2])
PLAIN = st.builds(
    event,
    st.integers(0, 3),
    TIMES,
    st.sampled_from(["failure", "start", "attempt_started", "recovered", "worker_exit"]),
    RANKS,
    restarts=st.integers(0, 2),
)
STEPS = st.builds(
    event, st.integers(0, 3), TIMES, st.sampled_from(["step", "caught_up"]), st.integers(0, 2), step=st.integers(0, 20)
)  # fmt: skip
METERS = st.builds(
    lambda attempt, t_s, rank, buckets, off: event(
        attempt, t_s, "ledger", rank, buckets=buckets, wall_s=sum(buckets.values()) * off
    ),
    st.integers(0, 3),
    TIMES,
    st.integers(0, 2),
    st.dictionaries(st.sampled_from([*BUCKETS, "invented"]), SECONDS),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
ATTEMPTS = st.lists(st.tuples(st.none() | TIMES, st.none() | TIMES), max_size=4).map(
    lambda spans: [attempt(i, *span) for i, span in enumerate(spans)]
)


@given(
    events=st.lists(st.one_of(PLAIN, STEPS, METERS), max_size=30),
    attempts=ATTEMPTS,
    created_s=st.none() | TIMES,
    ended_s=st.none() | TIMES,
)
def test_whatever_happened_the_buckets_add_up(
    events: list[Event], attempts: list[Attempt], created_s: float | None, ended_s: float | None
) -> None:
    """For events in any order and number, and clocks that jump, no time is lost, counted twice or negative."""
    starts = [a.started_s for a in attempts if a.started_s is not None]
    ledgers = rank_ledgers(events, attempts, created_s=created_s, ended_s=ended_s)
    begin_s = created_s if created_s is not None else min(starts, default=ended_s)
    if begin_s is None:
        assert ledgers == {}
        return
    end_s = newest_s(events, attempts, begin_s) if ended_s is None else ended_s
    wall_s = max([begin_s, end_s, *starts]) - begin_s
    total = run_ledger(events, attempts, created_s=created_s, ended_s=ended_s)
    for ledger in (total, *ledgers.values()):
        assert set(ledger) == set(BUCKETS)
        assert sum(ledger.values()) == pytest.approx(wall_s, abs=1e-6)
        assert min(ledger.values()) >= -1e-6
