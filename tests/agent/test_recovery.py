"""What is done after a failure: the decision table, and what holds for every history."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.agent.recovery import Action, Fleet, Incident, Rules, Verdict, backoff_s, recover
from tradewind.diagnose.cause import Cause, Symptom
from tradewind.diagnose.xid import TABLE

RULES = Rules(max_restarts=3, min_workers=4)
CLUSTER = Fleet(workers=16, on_host=8, spare_hosts=1)
FULL = Fleet(workers=16, on_host=8)
ALONE = Fleet(workers=8, on_host=8)
BUG = "ValueError: bad row at train.py:33 in step"


def incident(cause: Cause, committed: int = 10, **fields: Any) -> Incident:
    """A failure in step 12 on host a, 100 s into the run, unless said otherwise."""
    about = {name: fields.pop(name) for name in ("xids", "signature", "transient", "ecc") if name in fields}
    symptom = Symptom(cause=cause, text="rank 1: it broke", **about)
    return Incident(
        **{"t_s": 100.0, "step": 12, "host": "a", "rank": 1} | fields, committed=committed, symptom=symptom
    )


def xid(code: int) -> dict[str, Any]:
    return {"cause": Cause.DEVICE, "xids": (TABLE[code],)}


KILLED, CRASH = incident(Cause.KILLED), incident(Cause.CRASH)
RAISED = incident(Cause.EXCEPTION, signature=BUG)
MMU_FAULT = incident(**xid(31), signature="CUDA error: illegal memory access")

TABLE_OF_DECISIONS = [
    # name, earlier incidents, this one, fleet, action, what the reason says, delay
    ("a kill", [], KILLED, FULL, Action.RESTART, "restart 1 of 3", 0.0),
    ("a crash", [], CRASH, FULL, Action.RESTART, "in step 12 on a", 0.0),
    ("an exception", [], RAISED, FULL, Action.RESTART, "restart 1 of 3", 0.0),
    ("host memory", [], incident(Cause.HOST_MEMORY), FULL, Action.RESTART, "restart 1", 0.0),
    ("device memory", [], incident(Cause.DEVICE_MEMORY), FULL, Action.RESTART, "restart 1", 0.0),
    ("a hang", [], incident(Cause.HANG), FULL, Action.RESTART, "restart 1", 0.0),
    ("a lost peer", [], incident(Cause.PEER_LOST), FULL, Action.RESTART, "restart 1", 0.0),
    ("standing still", [], incident(Cause.NO_PROGRESS), FULL, Action.RESTART, "restart 1", 0.0),
    ("preemption", [], incident(Cause.PREEMPTED), FULL, Action.REQUEUE, "scheduled again", 0.0),
    ("bad data", [], incident(Cause.DATA), CLUSTER, Action.STOP, "data would fail again", 0.0),
    ("a bad import", [], incident(Cause.USAGE), CLUSTER, Action.STOP, "same code", 0.0),
    ("a lost host", [], incident(Cause.HOST_LOST), CLUSTER, Action.REPLACE, "replaced", 0.0),
    ("no spare", [], incident(Cause.HOST_LOST), FULL, Action.SHRINK, "8 workers go on", 0.0),
    ("the only host", [], incident(Cause.HOST_LOST), ALONE, Action.REQUEUE, "too few workers", 0.0),
    ("Xid 13", [], incident(**xid(13)), CLUSTER, Action.RESTART, "restart 1", 0.0),
    ("Xid 79", [], incident(**xid(79)), CLUSTER, Action.REPLACE, "replaced", 0.0),
    ("Xid 94 here", [], incident(**xid(94)), ALONE, Action.SHRINK, "7 workers go on", 0.0),
    ("ECC", [], incident(Cause.DEVICE, ecc=True), CLUSTER, Action.REPLACE, "replaced", 0.0),
    ("killed again", [KILLED], KILLED, FULL, Action.RESTART, "restart 2 of 3", 1.0),
    ("killed thrice", [KILLED] * 2, KILLED, FULL, Action.RESTART, "restart 3 of 3", 2.0),
    ("no progress", [KILLED] * 3, KILLED, FULL, Action.STOP, "4 failures with no step committed", 0.0),
    ("progress since", [KILLED] * 9, incident(Cause.KILLED, 11), FULL, Action.RESTART, "restart 1", 0.0),
    ("the same bug", [RAISED], RAISED, CLUSTER, Action.STOP, BUG, 0.0),
    ("another step", [incident(Cause.EXCEPTION, signature=BUG, step=11)], RAISED,
     FULL, Action.RESTART, "2 of 3", 1.0),
    ("bug between kills", [RAISED, KILLED], RAISED, FULL, Action.RESTART, "restart 3 of 3", 2.0),
    ("bug and progress", [incident(Cause.EXCEPTION, 5, signature=BUG)], RAISED,
     FULL, Action.RESTART, "1 of 3", 0.0),
    (
        "the network twice",
        [incident(Cause.EXCEPTION, signature=BUG, transient=True)],
        incident(Cause.EXCEPTION, signature=BUG, transient=True),
        FULL, Action.RESTART, "restart 2", 1.0,
    ),
    ("a fault, host or code", [MMU_FAULT], MMU_FAULT,
     CLUSTER, Action.REPLACE, "second failure in a row", 1.0),
    ("a fault on two hosts", [msgspec.structs.replace(MMU_FAULT, host="b")], MMU_FAULT,
     CLUSTER, Action.STOP, "twice", 0.0),
    ("crash twice here", [CRASH], CRASH, CLUSTER, Action.REPLACE, "second failure in a row", 1.0),
    ("crash twice, no spare", [CRASH], CRASH, FULL, Action.RESTART, "restart 2", 1.0),
    ("a kill, then a crash", [KILLED], CRASH, CLUSTER, Action.RESTART, "restart 2", 1.0),
    ("kills blame no host", [KILLED] * 2, KILLED, CLUSTER, Action.RESTART, "restart 3", 2.0),
    (
        "a host that fails often",
        [incident(Cause.CRASH, 1), incident(Cause.HANG, 2)], incident(Cause.CRASH, 3),
        CLUSTER, Action.REPLACE, "3 times or more", 0.0,
    ),
    (
        "all hosts fail often",
        [incident(Cause.CRASH, 1, host="b"), incident(Cause.CRASH, 2, host="b"),
         incident(Cause.CRASH, 3), incident(Cause.CRASH, 4)], incident(Cause.CRASH, 5),
        CLUSTER, Action.RESTART, "restart 1", 0.0,
    ),
    ("preempted again", [incident(Cause.PREEMPTED)] * 2, incident(Cause.PREEMPTED),
     FULL, Action.REQUEUE, "scheduled", 2.0),
    ("preempted for ever", [incident(Cause.PREEMPTED)] * 20, incident(Cause.PREEMPTED),
     FULL, Action.STOP, "21 times", 0.0),
    ("preemptions are no failures", [incident(Cause.PREEMPTED)] * 5, KILLED,
     FULL, Action.RESTART, "restart 1", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("history", "now", "fleet", "action", "reason", "delay_s"),
    [pytest.param(*case[1:], id=case[0]) for case in TABLE_OF_DECISIONS],
)
def test_decisions(
    history: list[Incident], now: Incident, fleet: Fleet, action: Action, reason: str, delay_s: float
) -> None:
    """Each failure after each history has its verdict, says why, and starts when its delay is over."""
    verdict = recover(RULES, history, now, 100.0, fleet)
    assert (verdict.action, verdict.delay_s, verdict.at_s) == (action, delay_s, 100.0 + delay_s)
    assert reason in verdict.reason


def test_a_run_shrinks_only_where_its_owner_allows_it() -> None:
    """Without a smallest number of workers in the rules a lost host requeues the run."""
    assert recover(Rules(), [], incident(Cause.HOST_LOST), 100.0, FULL).action is Action.REQUEUE


def test_broken_hosts_are_remembered() -> None:
    """A later failure elsewhere still avoids the host whose device broke, until the window has passed."""
    earlier = [incident(**xid(79), committed=5)]
    later = incident(Cause.KILLED, 20, host="b", t_s=5000.0)
    assert recover(RULES, earlier, later, 5000.0, CLUSTER).avoid == ("a",)
    assert recover(RULES, earlier, later, 100_000.0, CLUSTER).avoid == ()


def test_a_restart_in_place_does_not_avoid_its_own_host() -> None:
    """Where there is no other host, one that fails often is used again and not avoided."""
    verdict = recover(RULES, [incident(Cause.CRASH, 1)] * 3, incident(Cause.CRASH, 2), 100.0, FULL)
    assert (verdict.action, verdict.avoid) == (Action.RESTART, ())


def test_a_verdict_is_one_event() -> None:
    """A verdict becomes the plain data of an event, and can be read back from it."""
    verdict = recover(RULES, [], incident(**xid(79)), 100.0, CLUSTER)
    data = msgspec.json.decode(msgspec.json.encode(verdict.event()))
    assert msgspec.convert(data, Verdict) == verdict
    assert (data["action"], data["host"], data["avoid"]) == ("replace_host", "a", ["a"])


def test_back_off_doubles_to_its_cap() -> None:
    """Delays start at once, double, and end at the cap, however many failures there were."""
    assert [backoff_s(Rules(backoff_cap_s=5.0), n) for n in (1, 2, 3, 4, 5, 10_000)] == [0, 1, 2, 4, 5, 5]


symptoms = st.builds(
    Symptom,
    cause=st.sampled_from(Cause),
    text=st.just("rank 0: it broke"),
    xids=st.lists(st.sampled_from(list(TABLE.values())), max_size=2).map(tuple),
    signature=st.sampled_from(["", "A", "B"]),
    transient=st.booleans(),
    ecc=st.booleans(),
)
incidents = st.builds(
    Incident,
    symptom=symptoms,
    t_s=st.floats(0, 1e6),
    committed=st.integers(0, 5),
    step=st.none() | st.integers(0, 6),
    host=st.sampled_from(["", "a", "b"]),
    rank=st.none() | st.integers(0, 7),
)
rules = st.builds(
    Rules,
    max_restarts=st.integers(0, 5),
    max_preemptions=st.integers(0, 5),
    min_workers=st.integers(0, 8),
    backoff_s=st.floats(0, 10),
    backoff_cap_s=st.floats(0, 100),
)
fleets = st.builds(
    Fleet, workers=st.integers(1, 16), on_host=st.integers(1, 16), spare_hosts=st.integers(0, 2)
)


@given(rules, st.lists(incidents, max_size=12), incidents, fleets)
def test_every_verdict_is_explained_bounded_and_repeatable(
    limits: Rules, history: list[Incident], now: Incident, fleet: Fleet
) -> None:
    """The same question has the same answer, with a reason, a bounded delay and a possible world size."""
    verdict = recover(limits, history, now, 1e6, fleet)
    assert verdict == recover(limits, history, now, 1e6, fleet)
    assert verdict.reason.startswith("rank 0: it broke")
    assert len(verdict.reason.split("; ", 1)[1]) > 10
    assert 0 <= verdict.delay_s <= limits.backoff_cap_s
    goes_on = verdict.action in (Action.RESTART, Action.REPLACE, Action.SHRINK)
    assert (1 <= verdict.workers <= fleet.workers) if goes_on else verdict.workers == 0
    if verdict.action is Action.SHRINK:
        assert limits.min_workers <= verdict.workers < fleet.workers


@given(rules, st.lists(incidents, min_size=12, max_size=12), fleets)
def test_nothing_goes_on_for_ever_without_progress(
    limits: Rules, failures: list[Incident], fleet: Fleet
) -> None:
    """With no step committed any more a run stops after its restarts and preemptions, whatever fails."""
    history: list[Incident] = []
    for failure in failures:
        failure = msgspec.structs.replace(failure, committed=3)
        if recover(limits, history, failure, 1e6, fleet).action is Action.STOP:
            break
        history.append(failure)
    assert len(history) <= limits.max_restarts + limits.max_preemptions


@given(rules, st.lists(incidents, max_size=40), fleets)
def test_progress_restores_the_whole_budget(limits: Rules, failures: list[Incident], fleet: Fleet) -> None:
    """A kill after a newly committed step never ends a run that may restart at all."""
    killed = incident(Cause.KILLED, committed=6)
    verdict = recover(limits, failures, killed, 1e6, fleet)
    assert verdict.without_progress == 1
    assert (verdict.action is Action.RESTART) is (limits.max_restarts > 0)
