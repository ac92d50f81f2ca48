"""Wait for rank 0 to listen before calling it: torch backs off for up to a second when it is refused once."""

import contextlib
import os
import time
from pathlib import Path

_LISTENS = "0A"
_LOOK_S = 0.002
_PATIENCE_S = 10.0
"""After so long torch's own timeout and message are the better ones."""


def await_rank_0(rank: int) -> None:
    """Return when something listens on `MASTER_PORT` of this host, if that is where rank 0 is to be.

    Nothing is connected to: the kernel's table of sockets says who listens. Elsewhere, and where there is no
    such table, it returns at once.
    """
    port = os.environ.get("MASTER_PORT", "")
    if rank == 0 or os.environ.get("MASTER_ADDR") != "127.0.0.1" or not port.isdecimal():
        return
    until = time.monotonic() + _PATIENCE_S
    while listens(int(port)) is False and time.monotonic() < until:
        time.sleep(_LOOK_S)


def listens(port: int) -> bool | None:
    """Whether something on this host listens on a TCP port; None where that can not be known."""
    known = None
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            if f":{port:04X} " in _listening(Path("/proc/net", table).read_text()):
                return True
            known = False
    return known


def _listening(table: str) -> str:
    """The local ends of sockets that listen, each with a space behind it."""
    rows = (line.split() for line in table.splitlines()[1:])
    return "".join(f"{row[1]} " for row in rows if row[3] == _LISTENS)
