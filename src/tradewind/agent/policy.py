"""What to do with a group of workers, given how they ended: a pure function."""

import enum
from collections.abc import Sequence

import msgspec

from tradewind.names import ExitCode


class Step(enum.StrEnum):
    """What the agent does next."""

    WAIT = "wait"
    """Everyone runs, or those who ended did so well."""
    DRAIN = "drain"
    """Ask the others to end in good order and wait for them."""
    BREAK = "break"
    """Survivors are stuck in a collective: end them at once."""
    RESTART = "restart"
    """Start the whole group again from its last checkpoint."""
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
    ended: Sequence[Ended],
    *,
    workers: int,
    restarts_left: int,
    asked: str | None,
    hopeless: bool = False,
) -> Decision:
    """The next step for a group of `workers`, of which `ended` have ended.

    `asked` is "stop" (a person) or "preempt" (the machine is wanted) once the run was told to end.
    `hopeless` says that the first failure would repeat itself: a syntax error, a missing module.
    """
    done = len(ended) == workers
    failed = [e for e in ended if is_failure(e)]
    if asked:
        return finish_asked(ended, asked) if done else Decision(Step.DRAIN)
    if failed:
        return finish_failed(failed, restarts_left, hopeless) if done else Decision(Step.BREAK)
    if any(e.exit_code == ExitCode.REQUEUE for e in ended):
        if not done:
            return Decision(Step.DRAIN)
        return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, "the workers asked to be run again")
    if not done:
        return Decision(Step.WAIT)
    return Decision(Step.FINISH, "succeeded", ExitCode.OK, "every worker ended with 0")


def is_failure(ended: Ended) -> bool:
    """Whether this exit is a failure of the rank's own, rather than the agent's doing."""
    return not ended.told and ended.exit_code not in (ExitCode.OK, ExitCode.REQUEUE)


def finish_asked(ended: Sequence[Ended], asked: str) -> Decision:
    """How a run ends that was told to."""
    if all(e.exit_code == ExitCode.OK for e in ended):
        return Decision(Step.FINISH, "succeeded", ExitCode.OK, "every worker ended with 0")
    committed = all(e.exit_code in (ExitCode.OK, ExitCode.REQUEUE) for e in ended)
    state = "after its workers committed" if committed else "at its last checkpoint"
    if asked == "stop":
        return Decision(Step.FINISH, "stopped", ExitCode.INTERRUPTED, f"stopped {state}")
    return Decision(Step.FINISH, "requeued", ExitCode.REQUEUE, f"preempted {state}")


def finish_failed(failed: Sequence[Ended], restarts_left: int, hopeless: bool) -> Decision:
    """Restart, or give up: on data that will fail again, or when every restart is used."""
    first = failed[0]
    how = f"rank {first.rank} {how_it_ended(first.exit_code)}"
    if hopeless or any(e.exit_code == ExitCode.DO_NOT_RETRY for e in failed):
        return Decision(Step.FINISH, "failed", ExitCode.DO_NOT_RETRY, f"{how}; it would fail again")
    if restarts_left > 0:
        return Decision(Step.RESTART, reason=how)
    return Decision(Step.FINISH, "failed", ExitCode.FAILED, f"{how}; no restarts left")


def how_it_ended(exit_code: int) -> str:
    """An exit code as a person says it."""
    import signal

    if exit_code >= 0:
        return f"exited with {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
