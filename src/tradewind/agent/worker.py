"""One worker process: forked from the standby into a group of its own, watched by a pidfd, killed with its children."""

import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Worker:
    """A running rank. `exit_code` and `ended_s` are set once `reap` has seen it end."""

    def __init__(
        self, rank: int, pid: int, pidfd: int, control: socket.socket, await_exit: Callable[[int], int]
    ) -> None:
        """`await_exit` gives the exit code of a process id that has ended."""
        self.rank = rank
        self.pid = pid
        self.pidfd = pidfd
        self.control = control
        self._await_exit = await_exit
        self.started_s = time.time()
        self.ended_s: float | None = None
        self.exit_code: int | None = None
        self.told: int | None = None
        """The last signal that the agent sent; an exit after it is not a failure of its own."""
        self.parked = False
        """It left a broken group, kept its process, and waits for the next one."""

    @property
    def running(self) -> bool:
        """Whether it has not been reaped yet."""
        return self.exit_code is None

    def send(self, signum: int) -> None:
        """Send a signal to the worker: to it alone, or to its whole group when it must die now."""
        self.told = signum
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
            if signum == signal.SIGKILL:
                os.killpg(self.pid, signum)
        except ProcessLookupError:
            return

    def end_hung(self) -> None:
        """SIGKILL because it hangs: a failure of its own, unlike an end it was told."""
        self.send(signal.SIGKILL)
        self.told = None

    def break_out(self) -> None:
        """Ask it to leave the collective it is in; it parks, or ends where its script cannot go on."""
        self.told = signal.SIGTERM
        self._tell({"do": "break"})

    def enter(self, env: Mapping[str, str], log: Path) -> None:
        """Let a parked worker run its script again, as a member of the next group."""
        self.parked, self.told, self.started_s = False, None, time.time()
        self._tell({"do": "enter", "env": dict(env), "log": str(log)})

    def hear(self) -> bool:
        """Take in what it says on its control socket; False when it has closed it."""
        try:
            data = self.control.recv(_MESSAGE_BYTES)
        except ConnectionResetError:
            data = b""
        if data and json.loads(data)["at"] == "parked":
            self.parked = True
        return bool(data)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self.control.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            return  # It has ended, which its pidfd says.

    def reap(self) -> int:
        """Collect the exit of a worker that ended, and kill what it left behind in its group."""
        self.ended_s = time.time()
        self.exit_code = self._await_exit(self.pid)
        self.parked = False
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return self.exit_code
        return self.exit_code

    def discard(self) -> None:
        """Let go of it: kill it if it still waits for a next group, and watch it no more."""
        if self.running:
            self.send(signal.SIGKILL)
        os.close(self.pidfd)
        self.control.close()


def die_with(parent: int) -> Callable[[], None]:
    """What a forked child does before exec so that the kernel kills it when `parent` dies."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return prepare
