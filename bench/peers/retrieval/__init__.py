"""usearch and LanceDB, each in a process of their own under their own environment, asked over a pipe."""

import json
import pathlib
import subprocess
from typing import Any

import numpy as np

from bench.harness import say
from bench.peers.environments import RETRIEVAL, environment


class Peer:
    """One peer over the vectors, queries and `u` in `folder`, where it also keeps its index."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name = name
        command = [
            str(environment(*RETRIEVAL) / "python"),
            str(pathlib.Path(__file__).parent / "worker.py"),
            name,
            str(folder),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        say(f"{name}: {self._answer()}")

    def ask(self, share: float, effort: int, first: int, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of each query from the `first` on, and positions int64[Q, 100] (-1 where it found fewer)."""
        request = {"share": share, "effort": effort, "first": first, "num_queries": num_queries}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return np.array(answer["seconds"]), np.array(answer["found"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}")
        return json.loads(line)
