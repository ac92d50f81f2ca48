"""Start a contender's processes, kill one of its workers in the middle of a step, time its way back."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from bench.peers.training import stamps, task_environment
from bench.peers.training.stamps import Stamp
from bench.peers.training.watching import Late, Watching

SETTLE_STEPS = 10
"""Steps that every worker commits before a kill."""
START_S, RECOVER_S, STOP_S = 120.0, 60.0, 20.0


@dataclass(frozen=True)
class Command:
    """One process of a contender; `again`: it is started again as soon as it ends."""

    argv: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    again: bool = False


@dataclass(frozen=True)
class Recovery:
    """One kill and what came of it; `hung`: seconds are the limit that was waited, and more in truth."""

    rank: int
    killed_s: float
    seconds: float
    """From the kill to the first step committed by a whole group again, beyond the last one before it."""
    survivor_seconds: float
    """The same for the worker that was not killed, whatever its group."""
    starts: int
    """Processes that were started in the killed one's place."""
    in_step: bool
    """The kill came before the worker committed the step in which it was meant to die."""
    hung: bool = False


class Process:
    """A command that runs, restarted by a thread of its own where it is to be."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command, self._log = command, log
        self._stopping = False
        self.popen = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        if command.again:
            self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                list(self.command.argv),
                env=os.environ | self.command.env,
                cwd=task_environment.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while True:
            self.popen.wait()
            if self._stopping:
                return
            self.popen = self._start()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left of its session after a while."""
        self._stopping = True
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


class Training:
    """A contender that trains with two workers, from `__enter__` to `__exit__`."""

    def __init__(
        self,
        folder: Path,
        commands: Callable[[Path], Sequence[Command]],
        work: int,
        device: str = "cpu",
    ) -> None:
        self.folder = folder
        self.watching = Watching(folder / "stamps")
        self._env = task_environment.of(folder / "stamps", work, device)
        self._commands = commands
        self.processes: list[Process] = []

    def __enter__(self) -> "Training":
        for number, command in enumerate(self._commands(self.folder)):
            own = Command(command.argv, self._env | command.env, command.again)
            process = Process(own, self.folder / f"process{number}.log")
            self.processes.append(process)
            if not command.again:
                self.watching.needed.append(os.pidfd_open(process.popen.pid))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.watching.read()
        for pid in {stamp.pid for stamp in self.watching.seen if is_worker(stamp.pid, self.folder)}:
            os.kill(pid, signal.SIGKILL)  # torchrun puts workers into sessions of their own.
        self.watching.close()

    def settle(self, steps: int = SETTLE_STEPS, limit_s: float = START_S) -> None:
        """Wait until the newest process of either rank has committed so many steps; raises Late."""
        try:
            self.watching.wait_all(lambda seen: all(committed(seen, r) >= steps for r in (0, 1)), limit_s)
        except Late as late:
            raise Late(f"{late}; the end of its log:\n{self.log_tail()}") from late

    def kill(self, rank: int, into_step_s: float, signum: int = signal.SIGKILL) -> Recovery:
        """A signal to `rank`, `into_step_s` after the beginning of a step of its own; then its recovery."""
        begun = self.watching.wait(lambda stamp: stamp.rank == rank and stamp.kind == "begin", RECOVER_S)
        time.sleep(into_step_s)
        killed_s = time.time()
        os.kill(begun.pid, signum)
        hung = False
        try:
            self.watching.wait_all(lambda seen: bool(back(seen, begun, killed_s, rank)), RECOVER_S)
            self.watching.wait_all(lambda seen: bool(back(seen, begun, killed_s, 1 - rank)), RECOVER_S)
        except Late:
            hung = True
        return read_recovery(self.watching.seen, begun, killed_s, hung)

    def log_tail(self) -> str:
        """The last words of the contender's processes."""
        return "\n".join(
            log.read_text(errors="replace")[-1500:] for log in sorted(self.folder.glob("process*.log"))
        )


def is_worker(pid: int, folder: Path) -> bool:
    """Whether this process still lives and is one of this training's, and not a later one with its id."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{stamps.FOLDER}={folder / 'stamps'}".encode() in environment


def committed(seen: Sequence[Stamp], rank: int) -> int:
    """Steps that the newest process of a rank has committed since it last entered its script."""
    mine = [stamp for stamp in seen if stamp.rank == rank]
    entered = max((i for i, stamp in enumerate(mine) if stamp.kind == "enter"), default=len(mine))
    return sum(stamp.kind == "commit" for stamp in mine[entered:])


def back(seen: Sequence[Stamp], begun: Stamp, killed_s: float, rank: int) -> list[Stamp]:
    """Commits of `rank` after the kill, beyond every step committed before it, the dead process's aside."""
    before = max((s.step for s in seen if s.kind == "commit" and s.t_s <= killed_s), default=0)
    return [
        stamp
        for stamp in seen
        if stamp.rank == rank
        and stamp.kind == "commit"
        and stamp.step > before
        and stamp.t_s > killed_s
        and stamp.pid != begun.pid
    ]


def read_recovery(seen: Sequence[Stamp], begun: Stamp, killed_s: float, hung: bool) -> Recovery:
    """The recovery that the stamps tell of."""
    rank = begun.rank
    whole, survivor = (back(seen, begun, killed_s, r)[:1] for r in (rank, 1 - rank))
    until_s = whole[0].t_s if whole else float("inf")
    starts = [
        s for s in seen if s.rank == rank and s.kind == "enter" and killed_s < s.t_s <= until_s
    ]  # A process that is started twice for one kill stamps twice.
    dead = [s for s in seen if s.pid == begun.pid and s.kind == "commit" and s.step >= begun.step]
    return Recovery(
        rank=rank,
        killed_s=killed_s,
        seconds=whole[0].t_s - killed_s if whole else RECOVER_S,
        survivor_seconds=survivor[0].t_s - killed_s if survivor else RECOVER_S,
        starts=len(starts),
        in_step=not dead,
        hung=hung,
    )
