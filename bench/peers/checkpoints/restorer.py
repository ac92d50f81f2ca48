"""The process that restores after a crash: one JSON line in for each root, one out.

It stands apart because what a peer makes of damaged bytes may take the process down: pickles are
run, sizes are believed. In: `{"root", "world"}`. Out: `{"step", "right", "complaints"}`; `right`
says whether every value is the one that was saved at that step.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.peers.checkpoints.stores import STORES, Restored, example

MEMORY_BYTES = 16 << 30
SECONDS = 60


def equal(left: Any, right: Any) -> bool:
    """The same keys, types and bits."""
    if isinstance(left, dict):
        same = isinstance(right, dict) and left.keys() == right.keys()
        return same and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, torch.Tensor):
        same = isinstance(right, torch.Tensor) and left.dtype == right.dtype and left.shape == right.shape
        return same and _bits(left).equal(_bits(right))
    return type(left) is type(right) and left == right


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def is_right(restored: Restored, world: int) -> bool:
    """Whether what came back is what was saved at the step it claims to be."""
    if restored.step is None:
        return False
    shared = example(restored.step, 0)[0]
    own = [example(restored.step, rank)[1] for rank in range(world)]
    return equal(restored.shared, shared) and equal(restored.own, own)


class Restorer:
    """The process that restores, replaced when it dies or hangs."""

    def __init__(self, name: str) -> None:
        self.name, self.deaths = name, 0
        self._process: subprocess.Popen[str] | None = None

    def restore(self, root: Path, world: int) -> dict[str, Any]:
        """What came back; `crashed` when the process died of it."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"root": str(root), "world": world}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer:
            return dict(json.loads(answer))
        process.wait()
        self.deaths, self._process = self.deaths + 1, None
        return {"step": None, "right": False, "complaints": [], "crashed": True}

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            command = [sys.executable, "-m", "bench.peers.checkpoints.restorer", self.name]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        return self._process


def main() -> None:
    name = sys.argv[1]
    torch.set_num_threads(1)
    answers = sys.stdout
    sys.stdout = sys.stderr
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for line in sys.stdin:
        # A restore that hangs is ended by the kernel, and counts as a death.
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS, resource.RLIM_INFINITY))
        asked = json.loads(line)
        restored = STORES[name](Path(asked["root"])).restore(asked["world"])
        right = is_right(restored, asked["world"])
        answer = {"step": restored.step, "right": right, "complaints": restored.complaints}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
