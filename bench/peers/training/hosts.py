"""Two hosts of one worker each, in network namespaces, and one that is lost: cable first, then everything on it.

A third host belongs to the run as its spare: an agent with a warm standby, and nothing else to do until it is needed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.training import task_environment
from bench.peers.training.driver import RECOVER_S, START_S, back, committed
from bench.peers.training.stamps import Stamp
from bench.peers.training.watching import Watching
from tests.services.namespaces import Network, network

PORT = 29400
LOST = 1
LEASE_S = 0.25
"""How long a host may be silent, as for torchft's replicas."""
LEARN_S = 25.0
"""Within which the silences of the start are forgotten."""


@dataclass(frozen=True)
class Lost:
    """What the loss of a host cost."""

    seconds: float
    """Until a whole group committed a step beyond all that were committed before."""
    recomputed: int
    """Steps that had been committed and were done again."""


class Hosts:
    """The agents of one run, one a host."""

    def __init__(self, folder: Path, wires: Network, work: int) -> None:
        self.folder, self.wires = folder, wires
        self.watching = Watching(folder / "stamps")
        self._agents: list[subprocess.Popen[bytes]] = []
        self._run = f"bench{os.getpid()}{folder.name}"
        self._env = task_environment.of(folder / "stamps", work) | {
            "TRADEWIND_HOSTS": ",".join(f"{address}:{PORT}" for address in wires.addresses),
            "TRADEWIND_TOKEN": "known to these hosts alone",
            "TRADEWIND_HOME": str(folder / "home"),
        }
        spec = {"script": "bench/peers/training/ours.py", "args": ["--max-recompute", "1"]}
        spec |= {"workers": 2, "hosts": 2, "python_path": ["."], "lease_s": LEASE_S}
        (folder / "run.json").write_text(json.dumps({"id": self._run, "name": "bench", "spec": spec}))
        (folder / "checkpoints").mkdir()

    def start(self, host: int) -> None:
        """Start the agent of a host."""
        own = self.folder / f"host{host}"
        own.mkdir()
        (own / "code").symlink_to(task_environment.ROOT)
        (own / "checkpoints").symlink_to(self.folder / "checkpoints")
        command = [
            sys.executable,
            "-P",
            "-m",
            "tradewind.agent.fleet",
            str(self.folder / "run.json"),
            str(own),
        ]
        mine = {"TRADEWIND_HOST": str(host), "TRADEWIND_ADDRESS": self.wires.addresses[host]}
        with (self.folder / f"agent{host}.log").open("wb") as log:
            self._agents.append(
                subprocess.Popen(
                    self.wires.command(host, *command),
                    env=os.environ | self._env | mine,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        if host == 0:
            self.watching.needed.append(os.pidfd_open(self._agents[-1].pid))

    def lose(self, into_step_s: float) -> "Lost":
        """Lose the host of rank 1 in the middle of a step, until both ranks have committed one again."""
        begun = self.watching.wait(lambda stamp: stamp.rank == LOST and stamp.kind == "begin", RECOVER_S)
        # Whichever host came last is the spare.
        host = next(host for host in range(1, len(self.wires.names)) if begun.pid in self._pids(host))
        time.sleep(into_step_s)
        lost_s = time.time()
        self.wires.pull(host)
        for pid in self._pids(host):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(Path(f"/dev/shm/tradewind-{os.getuid()}/{self._run}-{host}"), ignore_errors=True)
        self.watching.wait_all(lambda seen: bool(back(seen, begun, lost_s, LOST)), RECOVER_S)
        seen = self.watching.seen
        new = back(seen, begun, lost_s, LOST)[0]
        before = max(stamp.step for stamp in seen if stamp.kind == "commit" and stamp.t_s <= lost_s)
        resumed = next(s.step for s in seen if s.kind == "resumed" and s.pid == new.pid)
        return Lost(new.t_s - lost_s, before - resumed)

    def settle(self, steps: int = 10) -> None:
        """Wait until both ranks have committed so many steps, and the leader knows the hosts."""

        def enough(seen: list[Stamp]) -> bool:
            return all(committed(seen, rank) >= steps for rank in (0, 1))

        self.watching.wait_all(enough, START_S)
        time.sleep(LEARN_S)

    def close(self) -> None:
        """End everything on every host."""
        for host in range(len(self.wires.names)):
            for pid in self._pids(host):
                os.kill(pid, signal.SIGKILL)
        for agent in self._agents:
            agent.wait()
        self.watching.close()
        for folder in Path(f"/dev/shm/tradewind-{os.getuid()}").glob(f"{self._run}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _pids(self, host: int) -> list[int]:
        found = subprocess.run(
            ["ip", "netns", "pids", self.wires.names[host]], check=True, stdout=subprocess.PIPE, text=True
        )
        return [int(pid) for pid in found.stdout.split()]


@contextmanager
def hosts(folder: Path, work: int) -> Iterator[Hosts]:
    """Two hosts that train, and a spare."""
    with network(3) as wires:
        folder.mkdir(parents=True)
        training = Hosts(folder, wires, work)
        try:
            for host in range(3):
                training.start(host)
            yield training
        finally:
            training.close()
