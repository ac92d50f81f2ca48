"""What the kernel says of a process: its scheduler state and the CPU time it has burnt."""

import os
import time
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessState(NamedTuple):
    """What `ps` would show of a process."""

    state: str
    """R, S, D, T (stopped), t (stopped by a tracer) or Z."""
    cpu_s: float
    """Of all its threads."""
    started_s: float
    """Unix time; with the process id it names one process for good."""


def read_process(pid: int) -> ProcessState | None:
    """The state of a process of this host; None once it is gone. Linux only."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    booted_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return ProcessState(
        state=fields[0].decode(),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        started_s=booted_s + int(fields[19]) / _TICKS_PER_S,
    )
