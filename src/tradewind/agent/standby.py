"""The agent's side of the warm standby: it starts the fork server and gets workers from it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tradewind import names
from tradewind.agent.job import Job, shared_environment
from tradewind.agent.journal import make_folder
from tradewind.agent.place import Place
from tradewind.agent.worker import LocalWorker, die_with
from tradewind.errors import TradewindError

SERVER = Path(__file__).with_name("forkserver.py")
TORCH = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch._dynamo",
    "numpy.random",
    "tradewind.train",
)
"""What every training script imports sooner or later; the last but two is what DDP imports when it is made."""
_MESSAGE_BYTES = 1 << 16


class Standby:
    """A process that has the slow imports behind it and becomes a worker in tens of milliseconds."""

    def __init__(self, env: Mapping[str, str], log: Path, preload: Sequence[str] = ()) -> None:
        """`env` is what all workers share: libraries read some of it (OMP_NUM_THREADS) as they load."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._exit_codes: dict[int, int] = {}
        command = [sys.executable, "-P", "-u", str(SERVER), str(theirs.fileno()), str(os.getpid())]
        with log.open("ab", buffering=0) as output:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
                preexec_fn=die_with(os.getpid()),
            )
        theirs.close()
        self._log = log
        if preload:
            self.preload(preload)

    def preload(self, names: Sequence[str]) -> None:
        """Have more modules imported before the next worker is asked for."""
        self._socket.send(json.dumps({"import": list(names)}).encode())

    def fork(self, job: Job, place: Place, env: Mapping[str, str], log: Path) -> LocalWorker:
        """A new worker, running the job's script with its output in `log`.

        Raises TradewindError when the standby has died.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"fork": {"argv": job.command(), "env": dict(env), "cwd": str(job.workdir)}}
        with theirs, log.open("ab", buffering=0) as output:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [output.fileno(), theirs.fileno()])
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1)
            message = self._read(data)
            if fds:
                return LocalWorker(job, place, message["pid"], fds[0], ours, self.exit_code)

    def exit_code(self, pid: int) -> int:
        """How a worker ended, once it has; a signal is negative."""
        while pid not in self._exit_codes:
            data = self._socket.recv(_MESSAGE_BYTES)
            if not data:
                return -signal.SIGKILL  # The standby died, and the kernel killed its workers with it.
            self._read(data)
        return self._exit_codes.pop(pid)

    def _read(self, data: bytes) -> dict[str, int]:
        if not data:
            raise TradewindError(f"the standby process ended with {self._process.wait()}; see {self._log}")
        message: dict[str, int] = json.loads(data)
        if "exit_code" in message:
            self._exit_codes[message["pid"]] = message["exit_code"]
        return message

    def close(self) -> None:
        """End the standby; workers that still run are killed with it."""
        self._socket.close()
        self._process.wait()

    def __enter__(self) -> "Standby":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def standby_of(job: Job) -> Standby:
    """The run's standby; it imports torch beforehand where the script will."""
    log = job.run_dir / names.LOGS_DIR / "standby.log"
    make_folder(log)
    return Standby(shared_environment(job, os.environ), log, TORCH if uses_torch(job) else ())


def uses_torch(job: Job) -> bool:
    """Whether the script looks as if it imported torch; a wrong guess costs time and nothing else."""
    try:
        text = (job.workdir / job.script).read_bytes()
    except OSError:
        return False  # The worker will say what is wrong with it.
    return b"torch" in text or b"tradewind" in text
