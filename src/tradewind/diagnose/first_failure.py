"""Which rank failed first, and why: the others mostly report that it was gone."""

import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

TAIL_BYTES = 64 * 1024
TAIL_LINES = 40

_TRACEBACK = "Traceback (most recent call last):"
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")
_RANK_PREFIX = re.compile(r"^\[rank\d+\]: ?")
_PEER_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "remote process exited",
    "Timed out waiting",
    "Connection refused",
    "NCCL communicator was aborted",
    "The client socket has timed out",
    "recvValue failed",
)
_SYNTAX = ("SyntaxError:", "IndentationError:", "TabError:")
_HOPELESS = ("SyntaxError", "IndentationError", "TabError", "ModuleNotFoundError", "ImportError")


class RankExit(msgspec.Struct, frozen=True, kw_only=True):
    """How one rank ended, and what it said last. A negative `exit_code` is a signal."""

    rank: int
    exit_code: int
    t_s: float
    told: bool = False
    """The agent had sent it a signal before it ended."""
    text: str = ""
    """The traceback, or the last lines of its log."""
    exception: str = ""
    """`Type: message`, when the log or the error file has one."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The first failure of an attempt."""

    rank: int
    kind: str
    """killed, crash, out_of_memory, peer_lost, import, usage, data, exception, exit or hang."""
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
    return Failure(
        rank=first.rank,
        kind=classify(first),
        exception=first.exception or describe_exit(first.exit_code),
        text=first.text,
        exit_code=first.exit_code,
        t_s=first.t_s,
    )


def is_own_failure(ended: RankExit) -> bool:
    """Whether this rank failed by itself; one that was told to end counts only if it raised before."""
    if ended.told:
        return bool(ended.exception) and classify(ended) != "peer_lost"
    return ended.exit_code not in (0, 75)


def classify(ended: RankExit) -> str:
    """The class of one rank's failure."""
    name = ended.exception.split(":", 1)[0].rsplit(".", 1)[-1]
    if "OutOfMemory" in name or name == "MemoryError" or "out of memory" in ended.exception:
        return "out_of_memory"
    if any(mark in ended.exception for mark in _PEER_LOST):
        return "peer_lost"
    if name in _HOPELESS:
        return "import"
    if ended.exit_code < 0 and not ended.told:
        return "killed" if -ended.exit_code in (signal.SIGKILL, signal.SIGTERM) else "crash"
    if ended.exit_code == 65:
        return "data"
    if ended.exception:
        return "exception"
    return "usage" if ended.exit_code == 2 else "exit"


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
    text, exception = from_log(log)
    if exit_code < 0 and not told:
        exception = ""  # A traceback before a signal from outside was handled; it is not why the rank ended.
    stamp = t_s
    if error_file is not None and error_file.exists():
        recorded = from_error_file(error_file)
        if recorded is not None:
            exception, text, raised_s = recorded[0], recorded[1] or text, recorded[2]
            stamp = min(t_s, raised_s or t_s)
    return RankExit(rank=rank, exit_code=exit_code, t_s=stamp, told=told, text=text, exception=exception)


def from_log(log: Path) -> tuple[str, str]:
    """The last traceback of a log and its exception line, or its last lines and nothing."""
    lines = [_RANK_PREFIX.sub("", line) for line in tail(log)]
    starts = [i for i, line in enumerate(lines) if line.startswith(_TRACEBACK) and not is_ignored(lines, i)]
    if starts:
        for i in range(starts[-1] + 1, len(lines)):
            if _EXCEPTION.match(lines[i]):
                return "\n".join(lines[starts[-1] : i + 1][-TAIL_LINES:]), lines[i]
    for line in reversed(lines):
        if line.startswith(_SYNTAX):
            return "\n".join(lines[-TAIL_LINES:]), line
    return "\n".join(lines[-TAIL_LINES:]), ""


def is_ignored(lines: Sequence[str], i: int) -> bool:
    """Whether the traceback that starts at `i` is one that Python only reports: raised while tearing down."""
    return i > 0 and lines[i - 1].startswith(("Exception ignored", "Error in atexit"))


def tail(log: Path) -> list[str]:
    """The last lines of a log, without reading all of it."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    return data.decode(errors="replace").splitlines()


def from_error_file(path: Path) -> tuple[str, str, float | None] | None:
    """Exception, traceback and time from the file that torch.distributed.elastic's `@record` writes."""
    try:
        body: Any = json.loads(path.read_bytes())
    except ValueError:
        return None
    message = body.get("message") if isinstance(body, dict) else None
    if isinstance(message, str):
        return message, "", None
    if not isinstance(message, dict):
        return None
    extra = message.get("extraInfo") or {}
    raised = extra.get("timestamp")
    return (
        str(message.get("message", "")),
        str(extra.get("py_callstack", "")),
        float(raised) if raised else None,
    )
