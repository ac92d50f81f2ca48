"""A TCP server that answers each HTTP request by the next word of its script, and counts what it injected.

Words: `ok` (200 with a body), a status such as `500` or `429:2` (the 2 is Retry-After), `reset` (the connection is
reset before an answer), `half` (the answer is cut off), `hold` (no answer; the connection stays open), `garbage`.
When the script is at its end, the last word goes on. GET /v2/health/ready is answered by `ready`, not by the script.
"""

import asyncio
import contextlib
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from socket import SO_LINGER, SOL_SOCKET
from typing import NamedTuple

BODY = b'{"model": "m@1", "items": [{"item": "a", "score": 1.5}]}'
WAIT_S = 30.0


class Seen(NamedTuple):
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """The server's side, as a test sees it."""

    def __init__(self, script: Sequence[str], body: bytes = BODY) -> None:
        self.script = list(script)
        self.body = body
        self.url = ""
        self.loop = asyncio.new_event_loop()
        self.ready = True
        self.seen: list[Seen] = []
        self.probes = 0
        self.connections = 0
        self.injected: Counter[str] = Counter()
        self.left = threading.Semaphore(0)
        """Released once for each connection that a client closed while its request was held."""
        self.held = threading.Semaphore(0)
        """Released once for each request that is held."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests of one connection by the script."""
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._one(reader, writer):
                pass
        self._writers.discard(writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split()[1]
        if path == "/v2/health/ready":
            self.probes += 1
            writer.write(_answer(200 if self.ready else 503, b"{}"))
            return True
        self.seen.append(Seen(path, headers, body))
        word = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.injected[word] += 1
        return await self._act(word, reader, writer)

    async def _act(self, word: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if word == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()
        elif word == "half":
            writer.write(_answer(200, self.body)[:-5])
        elif word == "garbage":
            writer.write(b"hello there\r\n\r\n")
        elif word == "hold":
            self.held.release()
            if await reader.read(1) == b"":
                self.left.release()
        else:
            status, _, after = ("200" if word == "ok" else word).partition(":")
            writer.write(_answer(int(status), self.body if word == "ok" else b'{"error": "scripted"}', after))
            return True
        return False

    def close_connections(self) -> None:
        """Close every connection from the server's side; to be called from any thread."""
        self.loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        for writer in self._writers:
            writer.close()


def _answer(status: int, body: bytes, retry_after: str = "") -> bytes:
    more = f"retry-after: {retry_after}\r\n" if retry_after else ""
    return f"HTTP/1.1 {status} X\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def scripted_server(
    *script: str, body: bytes = BODY, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Scripted]:
    """Serve on loopback from a thread of its own until the block ends; https with `tls`."""
    scripted = Scripted(script or ("ok",), body)
    loop = scripted.loop

    async def start() -> asyncio.Server:
        return await asyncio.start_server(scripted.serve, "127.0.0.1", port, ssl=tls)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_S)
    scripted.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        server.close()
        scripted._close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(tasks, timeout=WAIT_S) if tasks else None

    try:
        yield scripted
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(WAIT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
