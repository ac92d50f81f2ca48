"""A disk and a shared memory that can be disturbed, and count how often they were."""

import os
import threading
from typing import Any

import pytest

from tradewind.train.checkpoint import background


class Disk:
    """The disk under background writing, which can be made to wait and to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Semaphore(0)
        self.failures = 0
        self.fail_next = 0
        self._write = background.write_image
        monkeypatch.setattr(background, "write_image", self.write)

    def write(self, *given: Any) -> Any:
        self.reached.release()
        assert self.open.wait(60)
        if self.fail_next:
            self.fail_next -= 1
            self.failures += 1
            raise OSError(28, "No space left on device")
        return self._write(*given)


class SmallMemory:
    """Shared memory in which no more than so many images have room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, images: int) -> None:
        self.refused = 0
        self._left = images
        self._allocate = os.posix_fallocate
        monkeypatch.setattr(os, "posix_fallocate", self.allocate)

    def allocate(self, fd: int, offset: int, size: int) -> None:
        if not self._left and offset == 0:
            self.refused += 1
            raise OSError(28, "No space left on device")
        self._left -= offset == 0
        self._allocate(fd, offset, size)
