"""When a request reached this machine, which on a busy server is well before it is read."""

import asyncio
import socket
import struct
import sys
import time

_TCP_INFO_BYTES = 56
_LAST_DATA_RECEIVED_MS = struct.Struct("@I")
_OFFSET = 52
"""Of `tcpi_last_data_recv` in Linux's `struct tcp_info`."""


def arrived_s(sock: socket.socket, loop: asyncio.AbstractEventLoop) -> float:
    """Return the monotonic instant at which the last byte read from `sock` came in, a few milliseconds off at most.

    It waited since the loop last looked for what is readable (uvloop's clock stands still from then on), or longer:
    since the kernel took it in, where the kernel says.
    """
    now = time.monotonic()
    return min(now, loop.time(), now - _in_kernel_s(sock))


def _in_kernel_s(sock: socket.socket) -> float:
    if sys.platform != "linux":
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    if len(info) < _TCP_INFO_BYTES:
        return 0.0
    milliseconds: int = _LAST_DATA_RECEIVED_MS.unpack_from(info, _OFFSET)[0]
    return milliseconds / 1e3
