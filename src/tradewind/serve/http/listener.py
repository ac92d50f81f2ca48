"""Accept connections, end those that stall, and drain."""

import asyncio
import contextlib
import email.utils
import socket
import ssl
import time
from typing import cast

from tradewind.serve.http.connection import LINGER_S, App, Connection, Limits, Shared
from tradewind.serve.http.turns import Turns

SWEEP_S = 0.25
BACKLOG = 2048
HANDSHAKE_S = 10.0


class Listener:
    """All connections of one listening socket."""

    def __init__(self, app: App, limits: Limits, turns: Turns | None = None) -> None:
        self._shared = Shared(app, limits, turns or Turns())
        self._socket: socket.socket
        self._server: asyncio.Server
        self._sweeper: asyncio.TimerHandle

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a bound socket, which is closed with the listener."""
        self._socket = sock
        self._sweep()
        self._server = await self._listen(tls)

    async def renew(self, tls: ssl.SSLContext) -> None:
        """Greet new connections with another certificate; those that are open stay as they are."""
        before = self._server
        self._server = await self._listen(tls)
        before.close()

    async def _listen(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        # On a duplicate: connections that wait to be accepted outlive a server that is replaced.
        return await asyncio.get_running_loop().create_server(
            lambda: cast("asyncio.Protocol", Connection(self._shared)),
            sock=self._socket.dup(),
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else HANDSHAKE_S,
            ssl_shutdown_timeout=None if tls is None else LINGER_S,
        )

    @property
    def num_connections(self) -> int:
        return len(self._shared.connections)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, answer what was asked, close; return when all are closed or the time is up."""
        await asyncio.sleep(0)  # one round of the loop: what has already come is accepted and read
        self._server.close()
        self._socket.close()
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
        self._socket.close()
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
