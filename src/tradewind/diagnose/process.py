"""What the kernel says of a process: its scheduler state and the CPU time it has burnt."""

import os
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessState(NamedTuple):
    """One letter as in `ps` (R, S, D, T stopped, t traced, Z), and CPU seconds of all its threads."""

    state: str
    cpu_s: float


def read_process(pid: int) -> ProcessState | None:
    """The state of a process of this host; None once it is gone. Linux only."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ProcessState(fields[0].decode(), (int(fields[11]) + int(fields[12])) / _TICKS_PER_S)
