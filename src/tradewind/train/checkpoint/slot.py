"""A file in shared memory that one process writes images into, and others may still be reading from."""

import errno
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
import torch

from tradewind.errors import TradewindError
from tradewind.train.checkpoint import image, pages
from tradewind.train.checkpoint.copying import Bytes
from tradewind.train.checkpoint.pace import PIECE, UNHURRIED, Pace


class NoRoomError(TradewindError):
    """Shared memory cannot take what is to be staged; training can go on without."""


class Slot:
    """One image file, mapped; `header` is what it holds now, None when nothing valid.

    A reader holds a shared lock on the file for as long as its tensors live in it. A slot that is
    still being read is not written again: a new file takes its name, and the old one goes away
    with its last reader. The kernel drops the locks of a process that was killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.version = 0
        """Grows whenever the mapping is another one than before."""
        self.header = image.peek(path)
        self.pins = 0
        self.claims = 0
        """Of these pins, those of who will seal the image."""
        self._fd = -1
        self._bytes: Bytes = np.empty(0, dtype=np.uint8)
        self._locked: bool | None = None
        """Whether the pages of this mapping are locked; None before that was tried."""
        if path.exists():
            self._attach()

    @property
    def bytes(self) -> Bytes:
        """The mapped file."""
        return self._bytes

    @property
    def view(self) -> memoryview:
        """The mapped file, as bytes."""
        return self._bytes.data

    def _attach(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR)
        self._map(os.fstat(self._fd).st_size)

    def _map(self, size: int) -> None:
        self._bytes = np.frombuffer(mmap.mmap(self._fd, size), dtype=np.uint8)
        self.size = size
        self.version += 1

    def begin(self, size: int, pace: Pace = UNHURRIED) -> None:
        """Take the slot for an image of `size` bytes: what it held is gone, and no reader is harmed."""
        if self._fd < 0 or size > self.size or not self._lock():
            self._replace(size, pace)
        self.blank()

    def blank(self) -> None:
        """Make the slot hold nothing."""
        self.header = None
        if self.size:
            self.view[: len(image.BLANK)] = image.BLANK

    def commit(self, header: image.Header) -> None:
        """Make what was written the slot's image."""
        image.write_header(self.view, header)
        self.header = header
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def is_read(self) -> bool:
        """Whether something that was loaded from the slot is still in use."""
        if self._fd < 0:
            return False
        if not self._lock():
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _replace(self, size: int, pace: Pace) -> None:
        # The old file goes first: on the way there must be room for one of them only.
        self.close()
        self.path.unlink(missing_ok=True)
        fresh = self.path.with_suffix(".new")
        self._fd = make_fresh(fresh, size, pace)
        self._map(size)
        fresh.rename(self.path)
        if not self._lock():
            raise AssertionError(f"{self.path} was new, and another process has locked it")

    def touch(self, pace: Pace = UNHURRIED) -> None:
        """Have the kernel map every page now rather than one by one during the first copy."""
        for at in range(0, self.size, PIECE):
            with pace.working():
                self._bytes[at : at + PIECE : image.PAGE] = 0

    def lock_pages(self, device: torch.device) -> None:
        """Have a GPU copy into the slot by itself; where the driver refuses, it does so through a buffer."""
        if self._locked is None:
            self._locked = pages.lock(self._bytes, device)

    def discard(self) -> None:
        """Give the file up: it goes away with whoever still reads from it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        if self._locked:
            pages.unlock(self._bytes)
        if self._fd >= 0:
            os.close(self._fd)
        self._locked = None
        self._fd, self._bytes, self.size, self.header = -1, np.empty(0, dtype=np.uint8), 0, None


def make_fresh(path: Path, size: int, pace: Pace = UNHURRIED) -> int:
    """A file of so many bytes that are there, opened. Raises a NoRoomError."""
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        # Without this a full file system would show as SIGBUS in the middle of a copy.
        for at in range(0, size, PIECE):
            with pace.working():
                os.posix_fallocate(fd, at, min(PIECE, size - at))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        path.unlink(missing_ok=True)
        raise NoRoomError(_no_room(path, size, error)) from error
    return fd


def map_fresh(path: Path, size: int) -> mmap.mmap:
    """A file of so many bytes that are there, mapped. Raises a NoRoomError."""
    fd = make_fresh(path, size)
    try:
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


def _no_room(path: Path, size: int, error: OSError) -> str:
    if error.errno != errno.ENOSPC:
        return f"{path} cannot be made: {error.strerror}"
    left = os.statvfs(path.parent)
    return (
        f"{path} needs {size / 2**20:.0f} MiB and {path.parent} has {left.f_bavail * left.f_frsize / 2**20:.0f} "
        "left; give it more (in a container: --shm-size, or an emptyDir of medium Memory), or train without "
        "the memory tier"
    )
