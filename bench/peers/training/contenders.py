"""How each contender is started, at the best of its documented settings."""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.peers.training.driver import Command
from tradewind.agent.job import free_port

HERE = Path(__file__).parent
RESTARTS = 30
"""More than a benchmark's kills need, for contenders that restart more than once for a kill."""
TORCHFT = ("torchft==0.2.0", "opentelemetry-exporter-otlp-proto-http>=1.39")

Commands = Callable[[Path], Sequence[Command]]


def ours(*script_args: str, restarts: int = RESTARTS) -> Commands:
    """`tradewind run`, as a person types it."""

    def commands(folder: Path) -> Sequence[Command]:
        program = str(Path(sys.executable).with_name("tradewind"))
        flags = ["--workers", "2", "--max-restarts", str(restarts), "--output", "json"]
        script = ["--", *script_args] if script_args else []
        home = {"TRADEWIND_HOME": str(folder / "home")}
        return [Command([program, "run", str(HERE / "ours.py"), *flags, *script], home)]

    return commands


def torchrun(every: int, *, share_store: bool, fork: bool = False) -> Commands:
    """torchrun on one host; without `share_store` rank 0 makes a store afresh at every restart."""

    def commands(folder: Path) -> Sequence[Command]:
        flags = ["--standalone", "--nproc-per-node", "2", "--max-restarts", str(RESTARTS)]
        flags += ["--monitor-interval", "0.02"]
        if fork:
            flags += ["--run-path", "--start-method", "fork"]
        script = [str(HERE / "torchrun_dcp.py"), "--checkpoints", str(folder / "checkpoints")]
        env = {} if share_store else {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        argv = [sys.executable, "-m", "torch.distributed.run", *flags, *script, "--every", str(every)]
        return [Command(argv, env)]

    return commands


@dataclasses.dataclass(frozen=True)
class TorchftTimeouts:
    """How soon torchft may take a silent replica for dead."""

    heartbeat_timeout_ms: int = 500
    heartbeat_ms: int = 50
    join_timeout_ms: int = 500
    tick_ms: int = 10
    timeout_s: float = 5.0


def torchft(timeouts: TorchftTimeouts) -> Commands:
    """A lighthouse and two replica groups of one worker, each started again as soon as it ends."""

    def commands(folder: Path) -> Sequence[Command]:
        packages = installed(*TORCHFT)
        env = {"PYTHONPATH": f"{packages}:{HERE.parents[2]}"}
        address = f"127.0.0.1:{free_port()}"
        lighthouse = [sys.executable, str(packages / "bin" / "torchft_lighthouse")]
        lighthouse += ["--bind", address, "--min_replicas", "1"]
        lighthouse += ["--heartbeat_timeout_ms", str(timeouts.heartbeat_timeout_ms)]
        lighthouse += ["--join_timeout_ms", str(timeouts.join_timeout_ms)]
        lighthouse += ["--quorum_tick_ms", str(timeouts.tick_ms)]
        replica = [sys.executable, str(HERE / "torchft_replica.py"), "--lighthouse", f"http://{address}"]
        replica += ["--timeout-s", str(timeouts.timeout_s), "--heartbeat-ms", str(timeouts.heartbeat_ms)]
        groups = [Command(replica, env | {"REPLICA_GROUP_ID": str(i)}, again=True) for i in (0, 1)]
        return [Command(lighthouse, env), *groups]

    return commands


def installed(*requirements: str) -> pathlib.Path:
    """A folder, for the import path, with packages that our environment lacks; torch stays the same for all."""
    folder = pathlib.Path(tempfile.gettempdir()) / "tradewind-bench" / requirements[0].replace("==", "-")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", f"{temporary}/packages"]
            for requirement in requirements:
                dependencies = ["--no-deps"] if requirement == requirements[0] else []
                subprocess.run([*pip, *dependencies, requirement], check=True, stdout=sys.stderr)
            pathlib.Path(temporary, "packages").replace(folder)
    return folder
