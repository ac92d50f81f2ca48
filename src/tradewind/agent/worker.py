"""One worker of a group, and how it is one on this host: a forked process, watched by a pidfd, killed with its children."""

import abc
import ctypes
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tradewind.agent.job import Job
from tradewind.agent.place import Place
from tradewind.diagnose.first_failure import RankExit, read_exit
from tradewind.diagnose.process import read_process

_PR_SET_PDEATHSIG = 1
_MESSAGE_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class Sign(NamedTuple):
    """What a look at a worker from outside shows."""

    state: str
    """The kernel's letter for it: R, S, D, T, ..."""
    cpu_s: float
    phase: str | None
    """What its status page says that it is doing."""


class Worker(abc.ABC):
    """A running rank, on whichever host. `exit_code` and `ended_s` are set once it was seen to end."""

    def __init__(self, place: Place, pid: int) -> None:
        self.place = place
        self.pid = pid
        self.started_s = time.time()
        self.ended_s: float | None = None
        self.exit_code: int | None = None
        self.told: int | None = None
        """The last signal that the agent sent; an exit after it is not a failure of its own."""
        self.parked = False
        """It left a broken group, kept its process, and waits for the next one."""

    @property
    def rank(self) -> int:
        """Its rank in the group it is in or was in last."""
        return self.place.rank

    @property
    def running(self) -> bool:
        """Whether it has not been seen to end yet."""
        return self.exit_code is None

    def entered(self, place: Place) -> None:
        """Note that it goes on in this place."""
        self.place, self.parked, self.told, self.started_s = place, False, None, time.time()

    def send(self, signum: int) -> None:
        """Send a signal to the worker: to it alone, or to its whole group when it must die now."""
        self.told = signum
        self._send(signum)

    def end_hung(self) -> None:
        """SIGKILL because it hangs: a failure of its own, unlike an end it was told."""
        self._send(signal.SIGKILL)

    def break_out(self) -> None:
        """Ask it to leave the collective it is in; it parks, or ends where its script cannot go on."""
        self.told = signal.SIGTERM
        self._break_out()

    @abc.abstractmethod
    def _send(self, signum: int) -> None: ...

    @abc.abstractmethod
    def _break_out(self) -> None: ...

    @abc.abstractmethod
    def sign(self) -> Sign | None:
        """What it shows of itself now, if that is known."""

    @abc.abstractmethod
    def report(self) -> RankExit:
        """How it ended, with its last words."""


class LocalWorker(Worker):
    """A worker process of this host."""

    def __init__(
        self,
        job: Job,
        place: Place,
        pid: int,
        pidfd: int,
        control: socket.socket,
        await_exit: Callable[[int], int],
    ) -> None:
        """`await_exit` gives the exit code of a process id that has ended."""
        super().__init__(place, pid)
        self.job = job
        self.pidfd = pidfd
        self.control = control
        self._await_exit = await_exit

    def _send(self, signum: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signum)
            if signum == signal.SIGKILL:
                os.killpg(self.pid, signum)
        except ProcessLookupError:
            return

    def _break_out(self) -> None:
        self._tell({"do": "break"})

    def enter(self, place: Place, env: Mapping[str, str], log: Path) -> None:
        """Let a parked worker run its script again, as a member of the next group."""
        self.entered(place)
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

    def sign(self) -> Sign | None:
        process = read_process(self.pid)
        if process is None:
            return None
        return Sign(process.state, process.cpu_s, read_phase(self.job.status(self.rank)))

    def report(self) -> RankExit:
        return read_exit(
            self.rank,
            self.exit_code or 0,
            self.ended_s or 0.0,
            told=self.told is not None,
            log=self.job.log(self.place.attempt, self.rank),
            error_file=self.job.error_file(self.place.attempt, self.rank),
        )


def read_phase(path: Path) -> str | None:
    """The phase that a worker shows on its status page."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read().rstrip(b"\0").decode()
    except FileNotFoundError:
        return None


def die_with(parent: int) -> Callable[[], None]:
    """What a forked child does before exec so that the kernel kills it when `parent` dies."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return prepare
