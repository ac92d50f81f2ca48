"""One host of a run on Ray: an actor that lays out the code, runs the agent below itself and passes on what is printed.

The agent dies with its actor, and the workers with their agent, so that a host is lost as a whole or not at all.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tradewind import names
from tradewind.agent.job import free_port
from tradewind.agent.journal import LineTail
from tradewind.agent.worker import die_with
from tradewind.launch.kubernetes.pod import CODE
from tradewind.launch.kubernetes.pod import RUN as LAID_OUT
from tradewind.launch.kubernetes.unpack import make_checkpoints, unpack
from tradewind.launch.ray.package import SNAPSHOT

_LOOK_S = 0.3
"""How often logs are looked at: they are read to be passed on, and nothing else waits for them."""


class Host:
    """What the actor is; `run_json` is the same path on every node, in the folder that Ray laid out."""

    def __init__(self, run_json: str, index: int, scratch: str, lasting: str) -> None:
        self._run_json, self._index = Path(run_json).absolute(), index
        self._dir = Path(LAID_OUT) if Path(CODE).is_dir() else Path(scratch) / f"host{index}"
        self._lasting = lasting
        self._agent: subprocess.Popen[bytes] | None = None

    def where(self) -> tuple[str, int, int]:
        """This node's address, a free port of it, and the process that dies when the host is lost."""
        import ray

        address = ray.util.get_node_ip_address()
        return address, free_port(address), os.getpid()

    def run(self, env: Mapping[str, str]) -> Iterator[list[str] | int]:
        """Run the agent to its end: lines as they are printed, and last its exit code."""
        if self._dir != Path(LAID_OUT):
            self._lay_out()
        tails = Tails(self._dir)
        self._agent = self._start(env, tails.agent_log)
        code: int | None = None
        while code is None:
            try:
                code = self._agent.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                code = None
            lines = tails.read(last=code is not None)
            if lines:
                yield lines
        yield code

    def stop(self, *, now: bool) -> None:
        """Ask the agent to end its run in good order, or to end it at once."""
        if self._agent is not None and self._agent.poll() is None:
            self._agent.send_signal(signal.SIGTERM if now else signal.SIGINT)

    def _lay_out(self) -> None:
        parts = self._run_json.parent
        about: dict[str, Any] = json.loads((parts / SNAPSHOT).read_text(encoding="utf-8"))
        unpack(about, str(parts), str(self._dir / "code"))
        workdir = json.loads(self._run_json.read_text(encoding="utf-8"))["spec"].get("workdir", ".")
        (self._dir / "code" / workdir).mkdir(parents=True, exist_ok=True)
        make_checkpoints(str(self._dir / names.CHECKPOINTS_DIR), self._lasting)

    def _start(self, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
        home = {names.ENV_HOME: str(self._dir / "home")}
        command = [sys.executable, "-P", "-m", "tradewind.agent.fleet", str(self._run_json), str(self._dir)]
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env={**home, **without_ray(os.environ), **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with(os.getpid()),
            )


def without_ray(env: Mapping[str, str]) -> dict[str, str]:
    """What an agent inherits: all but Ray's own words to its worker process."""
    return {key: value for key, value in env.items() if not key.startswith(("RAY_", "__RAY"))}


class Tails:
    """The logs of a host's agent and workers, read as they grow; what was there before is left out."""

    def __init__(self, run_dir: Path) -> None:
        self._dir = run_dir
        self._old = {path: path.stat().st_size for path in self._found()}
        self.agent_log = run_dir / f"agent{len(list(run_dir.glob('agent*.log')))}.log"
        self._tails: dict[Path, LineTail] = {}

    def read(self, *, last: bool) -> list[str]:
        """New lines, those of a worker with its rank in front."""
        lines = []
        for path in [self.agent_log, *self._found()]:
            tail = self._tails.setdefault(path, LineTail(path, self._old.get(path, 0)))
            mark = f"[{path.stem}] " if path.stem.startswith("rank") else ""
            lines += [mark + line.decode(errors="replace") for line in tail.read(last)]
        return lines

    def _found(self) -> list[Path]:
        return sorted(self._dir.glob(f"{names.LOGS_DIR}/attempt*/rank*.log"))
