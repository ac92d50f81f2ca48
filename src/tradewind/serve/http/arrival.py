"""When a request reached this machine, which on a busy server is well before it is read."""

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable

_TCP_INFO_BYTES = 56
_LAST_DATA_RECEIVED_MS = struct.Struct("@I")
_OFFSET = 52
"""Of `tcpi_last_data_recv` in Linux's `struct tcp_info`."""
KERNEL_TICK_S = 0.004
"""What the kernel's answer is exact to."""


class Arrivals:
    """Tells when what is read now came in; the connections of one listener share it."""

    def __init__(
        self, in_kernel_s: Callable[[socket.socket], float] | None = None, tick_s: float = KERNEL_TICK_S
    ) -> None:
        self._in_kernel_s = in_kernel_s or _in_kernel_s
        self._tick_s = tick_s
        self._turn_s = self._before_s = -1.0
        """When the loop last looked for what is readable, and when it did before that and a request was complete."""

    def arrived_s(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, *, watched: bool) -> float:
        """Return the monotonic instant at which the last byte read from `sock` came in, a few milliseconds off at most.

        It waited since the loop last looked for what is readable (uvloop's clock stands still from then on), or
        longer: since the kernel took it in, where the kernel says. It is not asked where it has no more to say: of a
        socket that was `watched` all along, where the loop has found nothing to read there so short a time ago.
        """
        now, turn_s = time.monotonic(), loop.time()
        if turn_s != self._turn_s:
            self._before_s, self._turn_s = self._turn_s, turn_s
        stands_still = turn_s <= now
        if watched and stands_still and now - self._before_s < self._tick_s:
            return turn_s
        return min(now, turn_s, now - self._in_kernel_s(sock))


def _in_kernel_s(sock: socket.socket) -> float:
    if sys.platform != "linux":
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return 0.0
    milliseconds: int = _LAST_DATA_RECEIVED_MS.unpack_from(info, _OFFSET)[0]
    return milliseconds / 1e3
