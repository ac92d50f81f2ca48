"""The decision table: what the agent does, given how ranks ended."""

import pytest

from tradewind.agent.policy import Decision, Ended, Step, decide
from tradewind.names import ExitCode


def decided(ended: str, *, workers: int = 2, asked: str | None = None) -> Decision:
    """The decision for ends written as `0 75 -9t`: exit codes in order, `t` for told by the agent before."""
    words = ended.split()
    ends = [Ended(rank=i, exit_code=int(w.rstrip("t")), told=w.endswith("t")) for i, w in enumerate(words)]
    return decide(ends, workers=workers, restarts_left=1, asked=asked)


TABLE = [
    ("", None, Step.WAIT, "", 0),
    ("0", None, Step.WAIT, "", 0),
    ("0 0", None, Step.FINISH, "succeeded", 0),
    ("75", None, Step.DRAIN, "", 0),
    ("0 75", None, Step.FINISH, "requeued", 75),
    ("75 75", None, Step.FINISH, "requeued", 75),
    ("1", None, Step.BREAK, "", 0),
    ("-9", None, Step.BREAK, "", 0),
    ("0 -9", None, Step.RESTART, "", 0),
    ("1 -15t", None, Step.RESTART, "", 0),
    ("75 1", None, Step.RESTART, "", 0),
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
    assert bool(found.reason) == (step in (Step.FINISH, Step.RESTART))


@pytest.mark.parametrize(
    ("ended", "words"),
    [("75t 75t", "after its workers committed"), ("75t -9t", "at its last checkpoint"), ("1 75t", "at its last")],
)  # fmt: skip
def test_whether_workers_committed_is_said(ended: str, words: str) -> None:
    """The reason says whether the workers saved what they had when they were asked to end."""
    for asked in ("stop", "preempt"):
        assert words in decided(ended, asked=asked).reason


@pytest.mark.parametrize(("ended", "how"), [("-9", "SIGKILL"), ("3", "exited with 3"), ("-99", "signal 99")])
def test_how_a_run_without_restarts_ends(ended: str, how: str) -> None:
    """When every restart is used the run fails, with who ended it and how."""
    end = Ended(rank=0, exit_code=int(ended))
    found = decide([end], workers=1, restarts_left=0, asked=None)
    assert (found.step, found.state, found.exit_code) == (Step.FINISH, "failed", ExitCode.FAILED)
    assert "rank 0" in found.reason
    assert how in found.reason


@pytest.mark.parametrize(("code", "hopeless"), [(1, True), (65, False), (65, True)])
def test_what_would_fail_again_is_not_tried_again(code: int, hopeless: bool) -> None:
    """A hopeless failure, or one that says so itself, ends the run at once, with the code that says it."""
    found = decide([Ended(rank=0, exit_code=code)], workers=1, restarts_left=3, asked=None, hopeless=hopeless)
    assert (found.step, found.state, found.exit_code) == (Step.FINISH, "failed", ExitCode.DO_NOT_RETRY)
