"""Accept connections, end those that stall, and drain."""

import asyncio
import contextlib
import email.utils
import socket
import time

from tradewind.serve.http.connection import App, Connection, Limits, Shared

SWEEP_S = 0.25
BACKLOG = 2048


class Listener:
    """All connections of one listening socket."""

    def __init__(self, app: App, limits: Limits) -> None:
        self._shared = Shared(app, limits)
        self._server: asyncio.Server
        self._sweeper: asyncio.TimerHandle

    async def start(self, sock: socket.socket) -> None:
        """Listen on a bound socket."""
        loop = asyncio.get_running_loop()
        self._sweep()
        self._server = await loop.create_server(lambda: Connection(self._shared), sock=sock, backlog=BACKLOG)

    @property
    def num_connections(self) -> int:
        return len(self._shared.connections)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, answer what was asked, close; return when all are closed or the time is up."""
        await asyncio.sleep(0)  # one round of the loop: what has already come is accepted and read
        self._server.close()
        shared, empty = self._shared, asyncio.Event()
        shared.draining, shared.on_empty = True, empty.set
        for connection in list(shared.connections):
            connection.drain()
        if shared.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await empty.wait()

    def close(self) -> int:
        """Cut every connection off; return how many there were."""
        self._sweeper.cancel()
        self._server.close()
        left = list(self._shared.connections)
        for connection in left:
            connection.abort()
        return len(left)

    def _sweep(self) -> None:
        now = time.monotonic()
        self._shared.date = email.utils.formatdate(usegmt=True).encode()
        for connection in [c for c in self._shared.connections if c.expires_s <= now]:
            connection.expire()
        limits = self._shared.limits
        seconds = min(SWEEP_S, limits.read_s / 4, limits.write_s / 4, limits.keep_alive_s / 4)
        self._sweeper = asyncio.get_running_loop().call_later(seconds, self._sweep)
