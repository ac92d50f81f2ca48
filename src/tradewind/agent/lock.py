"""Whether a run's agent is alive: it holds a lock on a file, which the kernel releases when it dies."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradewind.errors import TradewindError

LOCK = "agent.lock"
_WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)
_FORM = "hhqqi4x"
"""C's `struct flock`: type, whence, start, length, process."""


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Be the one agent of this run.

    Raises TradewindError when another agent is.
    """
    fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FORM, fcntl.F_WRLCK, *_WHOLE_FILE))
        except BlockingIOError:
            raise TradewindError(f"{run_dir}: an agent is already running this run") from None
        yield
    finally:
        os.close(fd)


def is_held(run_dir: Path) -> bool:
    """Whether some agent is alive and runs this run.

    It asks without locking: a lock tried for an instant would turn away an agent that starts just then.
    """
    try:
        fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        asked = struct.pack(_FORM, fcntl.F_WRLCK, *_WHOLE_FILE)
        kind: int = struct.unpack(_FORM, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    finally:
        os.close(fd)
    return kind != fcntl.F_UNLCK
