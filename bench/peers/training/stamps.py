"""What a training worker did and when: one line an event, one write a line, one file a rank.

Standard library alone: a worker stamps its first instant before it imports anything slow.
"""

import os
import time
from dataclasses import dataclass

FOLDER = "BENCH_STAMPS"
"""Environment variable: the folder that holds the ranks' files."""


@dataclass(frozen=True)
class Stamp:
    """`kind` is `enter` (the script began), `begin` or `commit` (of a step), or a phase's own name."""

    rank: int
    kind: str
    step: int
    t_s: float
    pid: int

    @classmethod
    def parse(cls, rank: int, line: bytes) -> "Stamp":
        kind, step, t_s, pid = line.decode().split()
        return cls(rank, kind, int(step), float(t_s), int(pid))


class Stamps:
    """Appends this worker's events, with the wall clock, to its rank's file."""

    def __init__(self, rank: int) -> None:
        path = os.path.join(os.environ[FOLDER], f"rank{rank}")
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def __call__(self, kind: str, step: int = 0) -> None:
        os.write(self._fd, f"{kind} {step} {time.time():.6f} {os.getpid()}\n".encode())
