"""What to do with a group of workers, given how they ended: pure functions."""

import enum
from collections.abc import Sequence

import msgspec

from tradewind.agent.recovery import Action, Verdict
from tradewind.names import ExitCode


class Step(enum.StrEnum):
    """What the agent does next."""

    WAIT = "wait"
    """Everyone runs, or those who ended did so well."""
    DRAIN = "drain"
    """Ask the others to end in good order and wait for them."""
    BREAK = "break"
    """Survivors are stuck in a collective: get them out of it."""
    RECOVER = "recover"
    """Somebody failed and nobody is at work: ask the recovery policy."""
    RESTART = "restart"
    """Form the next group and go on from the newest state."""
    FINISH = "finish"
    """Nothing more to do; `state` and `exit_code` say how it ended."""


class Decision(msgspec.Struct, frozen=True):
    """A step, and for `FINISH` the run's final state, exit code and reason."""

    step: Step
    state: str = ""
    exit_code: int = 0
    reason: str = ""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one rank ended: negative exit codes are signals; `told` when the agent had sent one before."""

    rank: int
    exit_code: int
    told: bool = False


def decide(
    ended: Sequence[Ended], *, workers: int, parked: int = 0, asked: str | None, resized: bool = False
) -> Decision:
    """The next step for a group of `workers`, of which `ended` have ended and `parked` left the group.

    `asked` is "stop" (a person) or "preempt" (the machine is wanted) once the run was told to end;
    `resized` that it was told to go on with another number of workers.
    """
    done = len(ended) + parked == workers
    if asked:
        return finish_asked(ended, asked) if done else Decision(Step.DRAIN)
    if any(is_failure(e) for e in ended):
        return Decision(Step.RECOVER if done else Step.BREAK)
    if any(e.exit_code == ExitCode.REQUEUE and not e.told for e in ended):
        if not done:
            return Decision(Step.DRAIN)
        return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, "the workers asked to be run again")
    if len(ended) == workers and all(e.exit_code == ExitCode.OK for e in ended):
        return Decision(Step.FINISH, "succeeded", ExitCode.OK, "every worker ended with 0")
    # Once some have left, the others cannot go on without them, whatever was told since.
    if resized or parked or any(e.told for e in ended):
        return (
            Decision(Step.RESTART, reason="the number of workers changes") if done else Decision(Step.BREAK)
        )
    return Decision(Step.WAIT)


def is_failure(ended: Ended) -> bool:
    """Whether this exit is a failure of the rank's own, rather than the agent's doing."""
    return not ended.told and ended.exit_code not in (ExitCode.OK, ExitCode.REQUEUE)


def finish_asked(ended: Sequence[Ended], asked: str) -> Decision:
    """How a run ends that was told to."""
    if ended and all(e.exit_code == ExitCode.OK for e in ended):
        return Decision(Step.FINISH, "succeeded", ExitCode.OK, "every worker ended with 0")
    committed = all(e.exit_code in (ExitCode.OK, ExitCode.REQUEUE) for e in ended)
    state = "after its workers committed" if committed else "at its last checkpoint"
    if asked == "stop":
        return Decision(Step.FINISH, "stopped", ExitCode.INTERRUPTED, f"stopped {state}")
    return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, f"preempted {state}")


def follow(verdict: Verdict) -> Decision:
    """What the recovery policy's verdict means for this group."""
    if verdict.action in (Action.RESTART, Action.REPLACE, Action.SHRINK):
        return Decision(Step.RESTART, reason=verdict.reason)
    if verdict.action is Action.REQUEUE:
        return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, verdict.reason)
    code = ExitCode.DO_NOT_RETRY if verdict.fails_again else ExitCode.FAILED
    return Decision(Step.FINISH, "failed", code, verdict.reason)
