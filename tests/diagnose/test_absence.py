"""Runs that were away: told to end, and back later; what the cluster said says why."""

from typing import Any

import pytest

from tests.diagnose.test_ledger import attempt, event, named
from tradewind.diagnose.absence import absences
from tradewind.diagnose.ledger import run_ledger
from tradewind.store import Event

ATTEMPTS = [attempt(0, 1.0, 10.0), attempt(1, 30.0, 40.0)]


def told(*what: tuple[float, str]) -> list[Event]:
    """A run that is asked to end at 9 s and is back at 25 s, and what a cluster says meanwhile."""
    said = [event(0, t_s, "cluster", what=word, said=f"{word} by somebody") for t_s, word in what]
    own = [event(0, 9.0, "asked", to="preempt"), event(0, 25.0, "waiting")]
    work: dict[str, Any] = {"compute": 4, "startup": 4}
    meters = [
        event(index, t_s, "ledger", 0, buckets=work, wall_s=8.0) for index, t_s in ((0, 9.5), (1, 38.5))
    ]
    return [*own, *said, *meters]


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ([(8.5, "preempted")], "preempted"),
        ([(0.5, "suspended"), (8.5, "suspended"), (20.0, "resumed")], "suspended"),
        ([(5.0, "preempted"), (8.5, "suspended")], "suspended"),
        ([(8.5, "evicted")], "evicted"),
        ([(0.5, "suspended"), (0.6, "resumed")], "pending"),
        ([(8.5, "preempted"), (35.0, "suspended")], "preempted"),
        ([], "pending"),
    ],
)
def test_the_last_thing_said_before_it_was_back_is_why(what: list[tuple[float, str]], kind: str) -> None:
    """What was said before the attempt began, or after the next one did, has nothing to do with it."""
    (found,) = absences(told(*what), ATTEMPTS)
    assert (found.kind, found.begin_s, found.back_s, found.end_s) == (kind, 10.0, 25.0, 30.0)
    assert found.why == (f"{kind} by somebody" if kind != "pending" else "")


def test_the_ledger_has_its_seconds() -> None:
    """Away until an agent was back, restarting until the next attempt; all of it adds up."""
    ledger = run_ledger(told((8.5, "preempted")), ATTEMPTS, created_s=0.0, ended_s=40.0)
    found = named(ledger)
    assert (found["pending"], found["preempted"]) == (1.0, 15.0)
    assert found["restart"] >= 5.0
    assert sum(found.values()) == pytest.approx(40.0)


def test_a_group_that_is_formed_anew_was_not_away() -> None:
    """Agents that stayed and replaced a worker are no absence."""
    assert not absences([event(0, 9.0, "failure", 0)], ATTEMPTS)
    assert not absences(told()[:1], [attempt(0, 1.0), attempt(1, 30.0)])
