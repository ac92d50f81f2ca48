"""Whether a run's agent is alive: it holds a lock on a file, which the kernel releases when it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tradewind.errors import TradewindError

LOCK = "agent.lock"


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Be the one agent of this run.

    Raises TradewindError when another agent is.
    """
    fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TradewindError(f"{run_dir}: an agent is already running this run") from None
        yield
    finally:
        os.close(fd)


def is_held(run_dir: Path) -> bool:
    """Whether some agent is alive and runs this run."""
    try:
        fd = os.open(run_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
