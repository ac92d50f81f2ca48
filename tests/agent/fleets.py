"""Runs on several hosts, each in a network namespace of its own, with nothing shared but checkpoints."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.agent import training
from tests.agent.training import Finished
from tests.services.namespaces import Network
from tradewind.store import Event, open_store

PORT = 29400


class Fleet:
    """The agents of one run, one a host."""

    def __init__(self, folder: Path, network: Network, *, min_hosts: int = 0, **env: str) -> None:
        self.folder, self.network = folder, network
        self.run = f"fleet{secrets.token_hex(3)}"
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        self.logs: list[Path] = []
        hosts = len(network.names)
        spec = {"script": "script.py", "workers": hosts, "hosts": hosts, "min_hosts": min_hosts}
        spec["lease_s"] = 2.0  # Machines that run tests are silent for long.
        run = {"id": self.run, "name": "fleet", "spec": spec}
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "checkpoints").mkdir(exist_ok=True)
        self._env = training.environment(folder, **env) | {
            "TRADEWIND_HOSTS": ",".join(f"{address}:{PORT}" for address in network.addresses),
            "TRADEWIND_TOKEN": "a secret of sixteen or more",
        }
        del self._env["TRADEWIND_HOME"]

    def start(self, index: int) -> None:
        """Start a host's agent; on a host that is new, everything it has is its code."""
        run_dir = self.folder / f"host{index}"
        code = run_dir / "code"
        if not code.exists():
            code.mkdir(parents=True)
            (code / "script.py").write_text(training.SCRIPT)
            (run_dir / "checkpoints").symlink_to(self.folder / "checkpoints")
        env = self._env | {"TRADEWIND_HOST": str(index), "TRADEWIND_HOME": str(self.folder / "home")}
        module = ("-P", "-m", "tradewind.agent.fleet", str(self.folder / "run.json"), str(run_dir))
        log = self.folder / f"agent{index}.log"
        self.logs.append(log)
        with log.open("ab") as output:
            self.agents[index] = subprocess.Popen(
                self.network.command(index, sys.executable, *module),
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start_all(self) -> None:
        for index in range(len(self.network.names)):
            self.start(index)

    def kill(self, index: int) -> None:
        """The host is gone at once, with all that ran on it."""
        self.agents[index].send_signal(signal.SIGKILL)
        self.agents[index].wait()

    def replace(self, index: int) -> None:
        """A host and its memory are lost; once the others wait for it, workers may go on and a new one comes."""
        self.kill(index)
        self.forget(index)
        self.wait_for("waiting", 2)
        training.go_on(self.folder)
        self.start(index)

    def events(self, kind: str | None = None) -> list[Event]:
        """What was recorded so far."""
        if not (self.folder / "home" / "store.db").exists():
            return []
        with open_store(f"sqlite:///{self.folder}/home/store.db") as store:
            return [] if not store.runs() else list(store.events(self.run, kind=kind))

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Return once so many events of a kind were recorded."""
        training.wait_until(
            lambda: len(self.events(kind)) >= count, lambda: f"fewer than {count} of {kind}\n{self.said()}"
        )

    def memory(self, index: int) -> Path:
        """The shared memory of a host's workers."""
        return Path(f"/dev/shm/tradewind-{os.getuid()}/{self.run}-{index}")

    def wait_for_copy(self, holder: int = 0) -> int:
        """The newest step of the host before it that a host holds, once it holds one and all workers WAIT."""
        self.wait_for("step", len(self.agents))
        copies: list[Path] = []
        found = self.memory(holder) / "mirror"
        training.wait_until(
            lambda: copies.extend(found.glob("local0-*.image")) or copies, lambda: f"no copy\n{self.said()}"
        )
        return max(int(path.stem.rsplit("-", 1)[1]) for path in copies)

    def forget(self, index: int) -> None:
        """What a host had in memory is gone, as it is with the host."""
        shutil.rmtree(self.memory(index))

    def said(self) -> str:
        """What the agents printed, and what was recorded."""
        logs = "\n".join(f"{log.name}: {log.read_text()}" for log in dict.fromkeys(self.logs))
        events = [f"{e.t_s:.2f} {e.attempt} {e.kind} {e.rank} {e.data}" for e in self.events()]
        return logs + "\n" + "\n".join(events)

    def finish(self) -> Finished:
        """Wait for the end of every agent that was not killed."""
        codes = {index: agent.wait(120) for index, agent in self.agents.items()}
        assert len(set(codes.values())) == 1, (codes, self.said())
        with open_store(f"sqlite:///{self.folder}/home/store.db") as store:
            run = store.run(self.run)
            events = list(store.events(self.run))
        return Finished(codes[0], self.said(), run, events, self.folder / "out")

    def close(self) -> None:
        """End what still runs."""
        for agent in self.agents.values():
            agent.kill()
            agent.wait()
        for index in self.agents:
            shutil.rmtree(self.memory(index), ignore_errors=True)
