"""What this worker is doing now, where the agent can see it even when the worker cannot speak."""

import mmap
import os
from pathlib import Path

from tradewind.names import STATUS_BYTES


class Status:
    """A few bytes of shared memory that hold the name of the ledger's open bucket."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, STATUS_BYTES)
            self._page = mmap.mmap(fd, STATUS_BYTES)
        finally:
            os.close(fd)
        self._known: dict[str, bytes] = {}

    def say(self, phase: str) -> None:
        """Show this phase from now on."""
        shown = self._known.get(phase)
        if shown is None:
            shown = self._known[phase] = phase.encode().ljust(STATUS_BYTES, b"\0")
        self._page[:] = shown
