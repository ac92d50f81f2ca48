"""The decision table: what the agent does, given how ranks ended."""

import pytest

from tradewind.agent.policy import Decision, Ended, Step, decide, follow
from tradewind.agent.recovery import Action, Verdict
from tradewind.diagnose.cause import Cause
from tradewind.names import ExitCode


def decided(ended: str, *, workers: int = 2, asked: str | None = None) -> Decision:
    """The decision for ends written as `0 75 -9t`: exit codes in order, `t` for told by the agent before."""
    words = ended.split()
    ends = [Ended(rank=i, exit_code=int(w.rstrip("t")), told=w.endswith("t")) for i, w in enumerate(words)]
    return decide(ends, workers=workers, asked=asked)


TABLE = [
    ("", None, Step.WAIT, "", 0),
    ("0", None, Step.WAIT, "", 0),
    ("0 0", None, Step.FINISH, "succeeded", 0),
    ("75", None, Step.DRAIN, "", 0),
    ("0 75", None, Step.FINISH, "requeued", 75),
    ("75 75", None, Step.FINISH, "requeued", 75),
    ("1", None, Step.BREAK, "", 0),
    ("-9", None, Step.BREAK, "", 0),
    ("0 -9", None, Step.RECOVER, "", 0),
    ("1 -15t", None, Step.RECOVER, "", 0),
    ("75 1", None, Step.RECOVER, "", 0),
    ("", "stop", Step.DRAIN, "", 0),
    ("75", "stop", Step.DRAIN, "", 0),
    ("1", "stop", Step.DRAIN, "", 0),
    ("75t 75t", "stop", Step.FINISH, "stopped", 130),
    ("0 75t", "stop", Step.FINISH, "stopped", 130),
    ("-15t -9t", "stop", Step.FINISH, "stopped", 130),
    ("0 0", "stop", Step.FINISH, "succeeded", 0),
    ("75t 75t", "preempt", Step.FINISH, "requeued", 75),
    ("-15t -9t", "preempt", Step.FINISH, "requeued", 75),
    ("0 0", "preempt", Step.FINISH, "succeeded", 0),
]


@pytest.mark.parametrize(("ended", "asked", "step", "state", "code"), TABLE)
def test_the_table(ended: str, asked: str | None, step: Step, state: str, code: int) -> None:
    """Each combination of ends has its one decision."""
    found = decided(ended, asked=asked)
    assert (found.step, found.state, found.exit_code) == (step, state, code)
    assert bool(found.reason) == (step is Step.FINISH)


@pytest.mark.parametrize(
    ("ended", "words"),
    [("75t 75t", "after its workers committed"), ("75t -9t", "at its last checkpoint"), ("1 75t", "at its last")],
)  # fmt: skip
def test_whether_workers_committed_is_said(ended: str, words: str) -> None:
    """The reason says whether the workers saved what they had when they were asked to end."""
    for asked in ("stop", "preempt"):
        assert words in decided(ended, asked=asked).reason


@pytest.mark.parametrize(
    ("parked", "ended", "resized", "step"),
    [
        (0, "-9", False, Step.BREAK),
        (1, "-9", False, Step.RECOVER),
        (0, "", True, Step.BREAK),
        (1, "", True, Step.BREAK),
        (2, "", True, Step.RESTART),
        (1, "-15t", True, Step.RESTART),
        (1, "-9", True, Step.RECOVER),
    ],
)
def test_who_has_left_the_group_is_waited_for_no_more(
    parked: int, ended: str, resized: bool, step: Step
) -> None:
    """A group is over once all have ended or left it; a change of its size waits for that, a failure goes first."""
    ends = [Ended(rank=1, exit_code=int(w.rstrip("t")), told=w.endswith("t")) for w in ended.split()]
    assert decide(ends, workers=2, parked=parked, asked=None, resized=resized).step is step


def test_who_left_for_a_resize_that_was_taken_back_goes_on() -> None:
    """The others cannot go on without them, and none of it is an end: least of all a good one."""
    told = [Ended(rank=rank, exit_code=-9, told=True) for rank in (0, 1)]
    assert decide([], workers=2, parked=1, asked=None).step is Step.BREAK
    assert decide([], workers=2, parked=2, asked=None).step is Step.RESTART
    assert decide(told[:1], workers=2, asked=None).step is Step.BREAK
    assert decide(told, workers=2, asked=None).step is Step.RESTART


def test_a_group_that_is_done_is_not_resized() -> None:
    """Workers that have all finished well are not started again for having another number."""
    assert decide([Ended(rank=0, exit_code=0)], workers=1, asked=None, resized=True).step is Step.FINISH


@pytest.mark.parametrize(
    ("action", "fails_again", "step", "state", "code"),
    [
        (Action.RESTART, False, Step.RESTART, "", 0),
        (Action.REPLACE, False, Step.RESTART, "", 0),
        (Action.SHRINK, False, Step.RESTART, "", 0),
        (Action.REQUEUE, False, Step.FINISH, "requeued", ExitCode.REQUEUE),
        (Action.STOP, False, Step.FINISH, "failed", ExitCode.FAILED),
        (Action.STOP, True, Step.FINISH, "failed", ExitCode.DO_NOT_RETRY),
    ],
)
def test_a_verdict_is_followed(action: Action, fails_again: bool, step: Step, state: str, code: int) -> None:
    """What the recovery policy said decides whether the run goes on, and what it ends with."""
    verdict = Verdict(action=action, reason="because", cause=Cause.CRASH, fails_again=fails_again)
    assert follow(verdict) == Decision(step, state, code, "because")
