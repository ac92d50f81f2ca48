"""Memory that the front process and one worker share: a batch's tensors are written there once, and read where they lie.

Over a socket they would be copied into the kernel and out of it again, into memory that is new each time.
"""

import mmap
import os
import sys
from collections.abc import Sequence

from tradewind.serve.wire import Buffer, nbytes_of

SHARED_BYTES = 1 << 23
"""What a worker's memory holds; a larger batch goes over the socket. Only what was ever written takes memory."""


class Shared:
    """One worker's memory. It holds one batch: the worker is done with it when it has answered."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SHARED_BYTES)

    @property
    def buffer(self) -> mmap.mmap:
        """All of it, for the worker to read from."""
        return self._map

    def put(self, buffers: Sequence[Buffer]) -> bool:
        """Write these one behind the other; False, and nothing is written, where they are too many bytes."""
        sizes = [nbytes_of(buffer) for buffer in buffers]
        if sum(sizes) > SHARED_BYTES:
            return False
        start = 0
        for buffer, size in zip(buffers, sizes, strict=True):
            end = start + size
            self._map[start:end] = buffer
            start = end
        return True

    def close(self) -> None:
        """Give up this process's share of it."""
        self._map.close()


def make() -> int | None:
    """Return a descriptor of new memory that has no name and ends with its last user; None where there is no such."""
    if sys.platform != "linux":
        return None
    fd = os.memfd_create("tradewind-batch")
    os.ftruncate(fd, SHARED_BYTES)
    return fd
