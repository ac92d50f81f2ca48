"""A real Ray of its own on loopback: a head with a job API, and further nodes on the same machine."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from tests.services.ports import free_port

READY_S = 180
NODE = "127.0.0.2"
"""On loopback; of 127.0.0.1 itself Ray makes the address of the network."""
SMALL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_niceness": "0",
}


class RayCluster:
    """Started by `with`; everything of it, its workers too, is gone afterwards."""

    def __init__(self, cpus: int, env: dict[str, str]) -> None:
        self.auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        """What whoever talks to it needs in the environment; Ray's own default would be a file in the user's home."""
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TRADEWIND_"))
        }
        self._cpus, self._env = cpus, clean | SMALL | self.auth | env
        self._folder = Path(tempfile.mkdtemp(prefix="twray"))  # Short: sockets lie in it.
        self._port, dashboard = free_port(), free_port()
        self.url = f"http://127.0.0.1:{dashboard}"
        self._head = self._start(
            "--head",
            f"--port={self._port}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            "--no-monitor",
            f"--temp-dir={self._folder}",
        )

    @property
    def headers(self) -> dict[str, str]:
        """Of a request to the job API."""
        return {"Authorization": f"Bearer {self.auth['RAY_AUTH_TOKEN']}"}

    def _start(self, *flags: str) -> "subprocess.Popen[bytes]":
        log = (self._folder / "start.log").open("ab")
        common = ("--block", f"--node-ip-address={NODE}", "--disable-usage-stats")
        sizes = (f"--num-cpus={self._cpus}", "--num-gpus=0", "--object-store-memory=100000000")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *common, *sizes, *flags]
        with log:
            return subprocess.Popen(command, env=self._env, stdout=log, stderr=log, start_new_session=True)

    def __enter__(self) -> "RayCluster":
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self._head.poll() is None:
            try:
                # There may be a job API before there is a node on which a job could run.
                answer = httpx2.post(
                    f"{self.url}/api/jobs/", json={"entrypoint": "true"}, timeout=10, headers=self.headers
                )
                if answer.status_code == 200:
                    return self
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        said = (self._folder / "start.log").read_text()
        self.__exit__()
        raise RuntimeError(f"Ray did not come up:\n{said[-3000:]}")

    def __exit__(self, *_: object) -> None:
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(20)
        except subprocess.TimeoutExpired:
            self._head.kill()
            self._head.wait()
        for process in self._left():
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _left(self) -> list[int]:
        """Processes whose command line names this cluster's folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue
            if str(self._folder).encode() in command:
                found.append(int(path.parent.name))
        return found
