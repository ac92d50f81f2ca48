"""What the training benchmarks make of stamps and events: recoveries, goodput, overhead."""

import statistics

import pytest

from bench import goodput, overhead
from bench.peers.training import breakdown, driver
from bench.peers.training.stamps import Stamp
from tradewind.store import Event

DEAD, NEXT, OTHER = 10, 11, 20


def stamps(*lines: tuple[int, str, int, float, int]) -> list[Stamp]:
    return [Stamp(*line) for line in lines]


def event(attempt: int, kind: str, t_s: float, rank: int | None = None) -> Event:
    return Event(run="r", attempt=attempt, rank=rank, t_s=t_s, kind=kind, data={})


def killed_at_3() -> list[Stamp]:
    """Rank 0 is killed at 3.0 in step 2; the survivor goes on alone at 3.5, the group at 5.0."""
    return stamps(
        (0, "commit", 1, 2.0, DEAD),
        (1, "commit", 1, 2.0, OTHER),
        (0, "begin", 2, 2.9, DEAD),
        (1, "commit", 2, 3.5, OTHER),
        (0, "enter", 0, 4.0, NEXT),
        (0, "commit", 1, 4.5, NEXT),
        (0, "commit", 2, 5.0, NEXT),
    )


def test_a_recovery_ends_with_a_step_beyond_the_last_one() -> None:
    """A step that is only done again is no recovery; survivor and whole group are timed apart."""
    seen = killed_at_3()
    found = driver.read_recovery(seen, seen[2], killed_s=3.0, hung=False)
    assert (found.seconds, found.survivor_seconds) == (2.0, 0.5)
    assert found.starts == 1
    assert found.in_step


def test_a_kill_that_came_too_late_is_told_apart() -> None:
    """A worker that still committed the step was killed between two steps."""
    seen = sorted([*killed_at_3(), Stamp(0, "commit", 2, 2.95, DEAD)], key=lambda s: s.t_s)
    begun = next(stamp for stamp in seen if stamp.kind == "begin")
    assert not driver.read_recovery(seen, begun, killed_s=3.0, hung=False).in_step


def test_only_the_newest_entry_counts_as_settled() -> None:
    """A worker that entered its script again, in place or afresh, has to commit its steps again."""
    seen = stamps((0, "enter", 0, 1.0, 7), (0, "commit", 1, 2.0, 7), (0, "enter", 0, 3.0, 7))
    assert driver.committed(seen, 0) == 0
    assert driver.committed([*seen, Stamp(0, "commit", 2, 4.0, 7)], 0) == 1


def test_phases_add_up_to_the_recovery() -> None:
    """From the kill to the first step of the slowest rank every instant is in one phase."""
    events = [
        event(0, "attempt_started", 0.0),
        event(0, "failure", 10.0, rank=1),
        event(1, "attempt_started", 10.2),
        event(1, "worker_started", 10.3, rank=0),
        event(1, "worker_started", 10.4, rank=1),
        event(1, "start", 10.7, rank=0),
        event(1, "start", 10.8, rank=1),
        event(1, "step", 11.5, rank=0),
        event(1, "step", 11.4, rank=1),
        event(1, "step", 99.0, rank=1),
    ]
    ((rank, phases),) = breakdown.recoveries_of(events, kills=[4.0, 9.9])
    assert rank == 1
    assert sum(phases.values()) == pytest.approx(11.5 - 9.9)
    assert phases["replacement forked"] == pytest.approx(0.2)


def test_kills_have_the_mean_interval_that_was_asked_for() -> None:
    """Over all slices there are as many kills as the time allows, the same for the same seed."""
    parts = goodput.kills_of(slices=5, slice_s=36.0, mtbf_s=60.0)
    assert sum(map(len, parts)) == 3
    assert all(0 <= at_s < 36 and rank in (0, 1) for part in parts for at_s, rank in part)
    assert parts == goodput.kills_of(slices=5, slice_s=36.0, mtbf_s=60.0)


def test_what_a_restart_took_back_did_not_stand() -> None:
    """A step counts once, and not at all when the restart, even after the slice, resumed before it."""
    steps = [
        (0, kind, step, t_s, DEAD)
        for step in (1, 2, 3)
        for kind, t_s in (("begin", step), ("commit", step + 0.5))
    ]
    again = [(0, "resumed", 1, 5.0, NEXT), (0, "begin", 2, 5.1, NEXT), (0, "commit", 2, 5.3, NEXT)]
    assert goodput.observe(stamps(*steps), 0.0, 4.0, 0).productive_s == pytest.approx(1.5)
    assert goodput.observe(stamps(*steps, *again), 0.0, 4.0, 1).productive_s == pytest.approx(0.5)
    assert goodput.observe(stamps(*steps, *again), 0.0, 6.0, 1).productive_s == pytest.approx(0.7)


def test_overhead_is_taken_pair_by_pair() -> None:
    """A drift of the machine cancels within a pair, in whichever order its blocks ran."""
    blocks = [("bare", [9.0, 1.0, 1.0]), ("loop", [0.0, 1.01, 1.01]), ("loop", [0.0, 2.02, 2.02])]
    blocks.append(("bare", [9.0, 2.0, 2.0]))
    assert overhead.overhead(blocks, statistics.median) == pytest.approx(0.01)
