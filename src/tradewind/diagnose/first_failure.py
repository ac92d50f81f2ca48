"""Which rank failed first, and why: the others mostly report that it was gone."""

import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tradewind.diagnose.last_words import from_crash, from_error_file, from_log
from tradewind.names import ExitCode

_PEER_LOST = (
    "Connection closed by",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Socket closed",
    "Timed out waiting",
    "timeout caused pair closure",
    "remote process exit",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
    "The client socket has timed out",
    "waiting for clients",
    "recvValue failed",
    "sendBytes failed",
)
"""What torch.distributed says when a peer is gone; Python's own ConnectionError is about something else."""
_AMBIGUOUS = ("Connection reset by peer", "Connection refused", "Broken pipe")
"""Of these, what without an exception's type may be about anything."""
_TIMED_OUT = (
    "Timed out waiting",
    "Watchdog caught collective operation timeout",
    "timeout caused pair closure",
)
_LAST_LINES = 2
_TORCH_TYPES = ("RuntimeError", "Dist", "c10", "std")
_NO_MEMORY = ("out of memory", "allocate memory", "bad_alloc")
_HOPELESS = ("SyntaxError", "IndentationError", "TabError", "ModuleNotFoundError", "ImportError")
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class RankExit(msgspec.Struct, frozen=True, kw_only=True):
    """How one rank ended, and what it said last. A negative `exit_code` is a signal."""

    rank: int
    exit_code: int
    t_s: float
    told: bool = False
    """The agent had sent it a signal before it ended."""
    lost: bool = False
    """Its host went, and it with the host."""
    text: str = ""
    """The traceback, or the last lines of its log."""
    exception: str = ""
    """`Type: message`, when the log or the error file has one."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The first failure of an attempt."""

    rank: int
    kind: str
    """killed, crash, out_of_memory, peer_lost, import, usage, data, exception, exit, hang or host_lost."""
    exception: str
    text: str
    exit_code: int
    t_s: float
    """When it raised, if torch's error file says so, else when the agent saw it end."""

    @property
    def hopeless(self) -> bool:
        """Whether the same code on the same data would fail the same way."""
        return self.kind in ("import", "usage", "data")


def first_failure(exits: Sequence[RankExit]) -> Failure | None:
    """The rank that failed first, by its own fault rather than because a peer was gone."""
    failed = [e for e in exits if is_own_failure(e)]
    if not failed:
        return None
    first = min(failed, key=lambda e: (classify(e) == "peer_lost", e.told, e.t_s, e.rank))
    if classify(first) == "peer_lost" and (silent := who_was_waited_for(first, exits)):
        return hang_of(silent, first)
    return Failure(
        rank=first.rank,
        kind=classify(first),
        exception=first.exception or describe_exit(first.exit_code),
        text=first.text,
        exit_code=first.exit_code,
        t_s=first.t_s,
    )


def who_was_waited_for(first: RankExit, exits: Sequence[RankExit]) -> RankExit | None:
    """The rank that the others waited for in vain: their wait timed out, and it was at work and had no complaint."""
    if not any(mark in first.exception or mark in first.text for mark in _TIMED_OUT):
        return None
    silent = [e for e in exits if e.told and not e.lost and not (e.exception or classify(e) == "peer_lost")]
    return silent[0] if len(silent) == 1 else None


def hang_of(silent: RankExit, witness: RankExit) -> Failure:
    """The failure of a rank that never came, as one says that waited for it."""
    said = witness.exception or next((line for line in witness.text.splitlines()[::-1] if line.strip()), "")
    return Failure(
        rank=silent.rank,
        kind="hang",
        exception=f"hang: it did not come to a collective in which rank {witness.rank} waited for it: {said}",
        text=silent.text,
        exit_code=silent.exit_code,
        t_s=witness.t_s,
    )


def is_own_failure(ended: RankExit) -> bool:
    """Whether this rank failed by itself; one that was told to end counts only if it raised before."""
    if ended.told:
        return bool(ended.exception) and classify(ended) != "peer_lost"
    return ended.exit_code not in (ExitCode.OK, ExitCode.REQUEUE)


def classify(ended: RankExit) -> str:
    """The class of one rank's failure."""
    if ended.lost:
        return "host_lost"
    name = type_name(ended.exception)
    if "OutOfMemory" in name or name == "MemoryError" or any(m in ended.exception for m in _NO_MEMORY):
        return "out_of_memory"
    if is_peer_lost(ended):
        return "peer_lost"
    if name in _HOPELESS:
        return "import"
    if ended.exit_code < 0 and not ended.told:
        return "killed" if -ended.exit_code in _FROM_OUTSIDE else "crash"
    if ended.exit_code == ExitCode.DO_NOT_RETRY:
        return "data"
    if ended.exception:
        return "exception"
    return "usage" if ended.exit_code == ExitCode.USAGE else "exit"


def type_name(exception: str) -> str:
    """The type of a `Type: message`, without its module."""
    return exception.partition(": ")[0].rsplit(".", 1)[-1]


def is_peer_lost(ended: RankExit) -> bool:
    """Whether it all began with torch.distributed saying that a peer was gone.

    It may say so in an exception that a later one was raised from, or below a message's first line.
    """
    if not ended.exception:
        return ended.exit_code > 0 and says_peer_lost_last(ended.text)
    said = [line for line in (ended.exception, *ended.text.splitlines()) if is_of_torch(line)]
    if is_of_torch(ended.exception):
        said.append(ended.text.rpartition(ended.exception)[2])
    return any(mark in words for words in said for mark in _PEER_LOST)


def says_peer_lost_last(text: str) -> bool:
    """Whether a rank that ended without a traceback had logged, as the last thing, that a peer was gone."""
    lines = [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]
    return any(mark in line for line in lines for mark in _PEER_LOST if mark not in _AMBIGUOUS)


def is_of_torch(line: str) -> bool:
    """Whether a line is an exception of a type that torch.distributed raises."""
    return type_name(line).startswith(_TORCH_TYPES)


def describe_exit(exit_code: int) -> str:
    """An exit without an exception, in words."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = "; out of memory, or killed from outside" if exit_code == -signal.SIGKILL else ""
    return f"killed by {name}{hint}"


def read_exit(
    rank: int, exit_code: int, t_s: float, *, told: bool, log: Path, error_file: Path | None = None
) -> RankExit:
    """One rank's end, with what its log and torch's error file say about it."""
    said = from_crash(log) if exit_code < 0 and not told else from_log(log)
    recorded = from_error_file(error_file) if error_file else None
    said = recorded or said
    return RankExit(
        rank=rank,
        exit_code=exit_code,
        t_s=t_s if said.raised_s is None else min(t_s, said.raised_s),
        told=told,
        text=said.text,
        exception=said.exception,
    )
