"""One worker process: started in a group of its own, watched by a pidfd, killed with its children."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Worker:
    """A running rank. `exit_code` and `ended_s` are set once `reap` has seen it end."""

    def __init__(self, rank: int, process: "subprocess.Popen[bytes]", pidfd: int) -> None:
        self.rank = rank
        self.process = process
        self.pidfd = pidfd
        self.started_s = time.time()
        self.ended_s: float | None = None
        self.exit_code: int | None = None
        self.told: int | None = None
        """The last signal that the agent sent; an exit after it is not a failure of its own."""

    @property
    def running(self) -> bool:
        """Whether it has not been reaped yet."""
        return self.exit_code is None

    def send(self, signum: int) -> None:
        """Send a signal to the worker: to it alone, or to its whole group when it must die now."""
        self.told = signum
        try:
            if signum == signal.SIGKILL:
                os.killpg(self.process.pid, signum)
            else:
                signal.pidfd_send_signal(self.pidfd, signum)
        except ProcessLookupError:
            return

    def reap(self) -> int:
        """Collect the exit of a worker that ended, and kill what it left behind in its group."""
        self.exit_code = self.process.wait()
        self.ended_s = time.time()
        os.close(self.pidfd)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return self.exit_code
        return self.exit_code


def start_worker(rank: int, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> Worker:
    """Start one rank with its output in `log`; it dies with this process."""
    with log.open("ab", buffering=0) as output:
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with(os.getpid()),
        )
    return Worker(rank, process, os.pidfd_open(process.pid))


def die_with(parent: int) -> Callable[[], None]:
    """What a forked child does before exec so that the kernel kills it when `parent` dies."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return prepare
