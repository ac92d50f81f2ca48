"""Memory that the front process and one worker share: a batch's tensors are written there once, and read where they lie.

Over a socket they would be copied into the kernel and out of it again, into memory that is new each time.
"""

import mmap
import os
import sys
from collections.abc import Sequence

from tradewind.serve.wire import Buffer, nbytes_of

SHARED_BYTES = 1 << 23
"""What each half of a worker's memory holds; a larger batch goes over the socket. Only what was ever written takes memory."""


class Shared:
    """One worker's memory: a half for the batch that it runs, and one for the batch that waits behind that."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, 2 * SHARED_BYTES)
        self._next = 0

    def at(self, start: int) -> memoryview:
        """Return what begins there, for the worker to read from."""
        return memoryview(self._map)[start:]

    def put(self, buffers: Sequence[Buffer]) -> int | None:
        """Write these one behind the other, where the batch before the last was, and return where they begin.

        None, and nothing is written, where they are too many bytes. The batch before the last must have been answered.
        """
        sizes = [nbytes_of(buffer) for buffer in buffers]
        if sum(sizes) > SHARED_BYTES:
            return None
        start = first = self._next
        for buffer, size in zip(buffers, sizes, strict=True):
            end = start + size
            self._map[start:end] = buffer
            start = end
        self._next = SHARED_BYTES - first
        return first

    def close(self) -> None:
        """Give up this process's share of it."""
        self._map.close()


def make() -> int | None:
    """Return a descriptor of new memory that has no name and ends with its last user; None where there is no such."""
    if sys.platform != "linux":
        return None
    fd = os.memfd_create("tradewind-batch")
    os.ftruncate(fd, 2 * SHARED_BYTES)
    return fd
