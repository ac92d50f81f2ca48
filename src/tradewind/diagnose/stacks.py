"""Look into a worker of this host that hangs: its stacks, and the collectives it has entered.

Every function answers within its timeout and returns None when the process does not: one that is
stopped, or whose machine is dying, tells nothing, and that must not stop the recovery.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tradewind.diagnose.process import read_process

_QUIET_S = 0.05


class Collectives(msgspec.Struct, frozen=True, kw_only=True):
    """How far one rank has come in one process group, counted in collectives."""

    group: str
    entered: int
    completed: int
    last: str = ""
    """The last one entered, as `gloo:all_reduce`."""


def python_stacks(
    pid: int, path: Path, *, signum: int = signal.SIGUSR1, timeout_s: float = 2.0
) -> str | None:
    """Signal a worker that called `train.stacks.dump_on_signal(path)` and return what it wrote."""
    start = path.stat().st_size if path.exists() else 0
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return None
    if not written(path, start, timeout_s):
        return None
    with path.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")


def written(path: Path, start: int, timeout_s: float) -> bool:
    """Wait until a file has grown past `start` and stays as it is; a dump has no end mark to wait for."""
    deadline = time.monotonic() + timeout_s
    size, since = start, time.monotonic()
    while time.monotonic() < deadline:
        now = path.stat().st_size if path.exists() else start
        if now != size:
            size, since = now, time.monotonic()
        elif size > start and time.monotonic() - since >= _QUIET_S:
            return True
        time.sleep(_QUIET_S / 5)
    return size > start


def native_stacks(pid: int, *, timeout_s: float = 10.0) -> str | None:
    """Python and C++ frames of every thread by py-spy, which needs no help of the worker.

    A stopped process has only its Python frames read. None without py-spy (the extra `ops` brings it);
    when the kernel forbids to trace, what py-spy says of that.
    """
    program, process = shutil.which("py-spy"), read_process(pid)
    if program is None or process is None:
        return None
    # py-spy pauses a process to unwind its C++ frames, and one that is stopped cannot be paused again.
    how = "--nonblocking" if process.state == "T" else "--native"
    try:
        done = subprocess.run(
            [program, "dump", "--pid", str(pid), how],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else done.stderr


def ask(path: Path, question: str, *, timeout_s: float = 2.0) -> bytes | None:
    """What the worker that serves this socket answers, as to `dump_traceback` or `fr_trace_json`."""
    connection = UnixConnection(path, timeout_s)
    try:
        connection.request("POST", f"/handler/{question}")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == 200 else None


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Open the socket instead of a TCP connection."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def collectives(path: Path, *, timeout_s: float = 2.0) -> list[Collectives] | None:
    """How far the worker that serves this socket has come, by process group; from torch's flight recorder."""
    body = ask(path, "fr_trace_json", timeout_s=timeout_s)
    if body is None:
        return None
    try:
        return read_trace(json.loads(body))
    except (ValueError, KeyError, TypeError):
        # Another torch may write another form; whoever asks goes on without this evidence.
        return None


def read_trace(trace: Mapping[str, Any]) -> list[Collectives]:
    """The state of each process group in a flight recorder's JSON (version 2.x)."""
    last = {str(entry["process_group"][0]): str(entry["profiling_name"]) for entry in trace["entries"]}
    return [
        Collectives(
            group=str(group),
            entered=int(status["last_enqueued_collective"]),
            completed=int(status["last_completed_collective"]),
            last=last.get(str(group), ""),
        )
        for group, status in sorted(trace["pg_status"].items())
    ]


def missing(by_rank: Mapping[int, list[Collectives]]) -> tuple[int, ...]:
    """The ranks that have not entered a collective in which others already wait."""
    entered = {(rank, state.group): state.entered for rank, states in by_rank.items() for state in states}
    most = {group: max(n for (_, g), n in entered.items() if g == group) for _, group in entered}
    return tuple(sorted({rank for (rank, group), n in entered.items() if n < most[group]}))
