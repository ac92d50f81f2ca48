"""What an agent has to run, and the environment its workers see."""

import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradewind import names
from tradewind.agent.place import Place

if TYPE_CHECKING:
    from tradewind.store import Run

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
"""What torchrun says that it passes on, for a launcher inside of a worker."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One run on this host: the command of every worker and the rules for keeping it alive."""

    run: str
    run_dir: Path
    workdir: Path
    script: str
    args: tuple[str, ...] = ()
    workers: int = 1
    """Of all hosts together."""
    hosts: int = 1
    min_hosts: int = 0
    """How few hosts may go on while others are lost; 0 waits for a lost one to be replaced."""
    lease_s: float = 1.0
    """How long a host may be silent at least before it is given up."""
    host: int | None = None
    """Which of them this one is; None for a run on one host."""
    host_wait_s: float = 600.0
    """How long to wait for hosts to come, or to come back."""
    env: dict[str, str] = {}
    python_path: tuple[str, ...] = ()
    """Folders put before the worker's PYTHONPATH, so that it imports the snapshot and not the working tree."""
    max_restarts: int = 3
    grace_s: float = 30.0
    """How long workers may take to checkpoint after SIGTERM when the run is asked to stop."""
    survivor_s: float = 2.0
    """How long survivors of a failure get to leave the broken group before they are killed and replaced."""

    @property
    def per_host(self) -> int:
        """Workers on each host."""
        return self.workers // self.hosts

    def command(self) -> list[str]:
        """The script and its arguments, the same for every rank."""
        return [self.script, *self.args]

    def log(self, attempt: int, rank: int) -> Path:
        """Where this rank's output goes."""
        return log_path(self.run_dir, attempt, rank)

    def journal(self, attempt: int, rank: int) -> Path:
        """Where this rank appends its journal."""
        return self.run_dir / names.JOURNAL_DIR / f"attempt{attempt}" / f"rank{rank}.jsonl"

    @property
    def control_dir(self) -> Path:
        """Where a person's wishes are left for the agent."""
        return self.run_dir / "control"

    def want(self, workers: int) -> None:
        """Ask the agent of this run to go on with so many workers."""
        wish = self.control_dir / f".workers-{os.getpid()}"
        wish.write_text(str(workers))
        wish.replace(self.control_dir / "workers")

    def read_wanted(self) -> int | None:
        """The number of workers that was asked for last, if any was."""
        try:
            return int((self.control_dir / "workers").read_text())
        except FileNotFoundError:
            return None

    @property
    def memory_dir(self) -> Path:
        """Where workers stage their state; it outlives them and is removed with the run's agent."""
        own = self.run if self.host is None else f"{self.run}-{self.host}"
        return Path("/dev/shm") / f"tradewind-{os.getuid()}" / own

    def status(self, rank: int) -> Path:
        """The page of memory on which this rank shows what it is doing."""
        return self.memory_dir / f"rank{rank}.status"

    def debug_socket(self, rank: int) -> Path:
        """Where this rank answers questions about its collectives."""
        return self.memory_dir / f"rank{rank}.sock"

    def stacks(self, attempt: int, rank: int) -> Path:
        """Where this rank writes its threads' stacks when it is asked to."""
        return self.log(attempt, rank).with_suffix(".stacks")

    def error_file(self, attempt: int, rank: int) -> Path:
        """Where torch's `@record` writes this rank's exception."""
        return self.log(attempt, rank).with_suffix(".error.json")


def log_path(run_dir: Path, attempt: int, rank: int) -> Path:
    """Where the output of `rank` in `attempt` is kept under a run's folder."""
    return run_dir / names.LOGS_DIR / f"attempt{attempt}" / f"rank{rank}.log"


def shared_environment(job: Job, base: Mapping[str, str]) -> dict[str, str]:
    """What all workers of a job see alike, whatever their rank and attempt."""
    env = {k: v for k, v in {**base, **job.env}.items() if k not in names.AGENT_ENVIRONMENT}
    if job.workers > 1:
        env.setdefault("OMP_NUM_THREADS", "1")
    paths = [*job.python_path, *env.get("PYTHONPATH", "").split(os.pathsep)]
    if job.python_path:
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return env


def worker_environment(job: Job, place: Place, base: Mapping[str, str]) -> dict[str, str]:
    """torchrun's environment for one worker, plus Tradewind's own names.

    Raises nothing; what the user set (`base`, then `job.env`) wins only for OMP_NUM_THREADS and
    variables that are not part of the contract.
    """
    attempt, rank = place.attempt, place.rank
    env = shared_environment(job, base)
    env |= {
        names.ENV_GRACE: f"{job.grace_s:g}",
        "RANK": str(rank),
        "LOCAL_RANK": str(place.local_rank),
        "GROUP_RANK": str(place.host),
        "ROLE_RANK": str(rank),
        "ROLE_NAME": "default",
        "WORLD_SIZE": str(place.world),
        "LOCAL_WORLD_SIZE": str(place.local_world),
        "GROUP_WORLD_SIZE": str(place.hosts),
        "ROLE_WORLD_SIZE": str(place.world),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "TORCHELASTIC_RESTART_COUNT": str(place.restarts),
        "TORCHELASTIC_MAX_RESTARTS": str(job.max_restarts),
        "TORCHELASTIC_RUN_ID": job.run,
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": env.get("TORCHELASTIC_SIGNALS_TO_HANDLE", SIGNALS),
        "TORCHELASTIC_ERROR_FILE": str(job.error_file(attempt, rank)),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": env.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        names.ENV_RUN: job.run,
        names.ENV_ATTEMPT: str(attempt),
        names.ENV_RUN_DIR: str(job.run_dir),
        names.ENV_JOURNAL: str(job.journal(attempt, rank)),
        names.ENV_MEMORY: str(job.memory_dir),
        names.ENV_STACKS: str(job.stacks(attempt, rank)),
        names.ENV_PEERS: ",".join(place.peers),
    }
    return env


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of this host that nothing listens on, outside the range from which outgoing connections are drawn.

    A port from the kernel's ephemeral range could be taken by an outgoing connection before rank 0 binds it.
    """
    low, high = 20000, ephemeral_range()[0] - 1
    tries = random.SystemRandom().sample(range(low, high), 64) if high - low > 64 else []
    for port in [*tries, 0]:
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise AssertionError("port 0 always binds")


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range for outgoing connections."""
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    if not os.path.exists(path):
        return 32768, 60999
    low, high = Path(path).read_text().split()
    return int(low), int(high)


def job_of(run: "Run") -> Job:
    """The job that a stored run describes."""
    run_dir = Path(run.dir)
    spec = run.spec
    code = run_dir / "code"
    return Job(
        run=run.id,
        run_dir=run_dir,
        workdir=code / spec.get("workdir", "."),
        script=spec["script"],
        args=tuple(spec.get("args", ())),
        grace_s=float(spec.get("grace_s", 30.0)),
        workers=int(spec.get("workers", 1)),
        hosts=int(spec.get("hosts", 1)),
        min_hosts=int(spec.get("min_hosts", 0)),
        lease_s=float(spec.get("lease_s", 1.0)),
        env=dict(spec.get("env", {})),
        python_path=tuple(str(code / path) for path in spec.get("python_path", ())),
        max_restarts=int(spec.get("max_restarts", 3)),
    )
