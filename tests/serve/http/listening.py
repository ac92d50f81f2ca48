"""A listener with a small app, and clients that speak bytes."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import uvloop

from tradewind.serve.http import Limits, Listener, Pending, Request, Response, Turn


class Echo:
    """Answers with the body it got, to `/last` and no more. `/later` is answered when `later.popleft().set_result(body)` is called."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.later: list[asyncio.Future[bytes]] = []
        self.unread_statuses: list[int] = []
        self.left = asyncio.Event()
        self.came = asyncio.Event()
        self.large = b""
        self.may_refuse = False

    def refuse(self, request: Request) -> Response | None:
        return None

    def turn(self, request: Request) -> Turn | None:
        return None

    def answer(self, request: Request) -> Response | Pending:
        self.requests.append(request)
        self.came.set()
        if request.path == "/large":
            return Response(200, self.large)
        if request.path == "/last":
            return Response(200, request.body, close=True)
        if request.path != "/later":
            return Response(200, request.body, "text/plain", (("x-path", request.path),))
        future = asyncio.get_running_loop().create_future()
        self.later.append(future)
        return Pending(future, lambda done: Response(200, done.result()), self.left.set)

    def unread(self, response: Response) -> None:
        self.unread_statuses.append(response.status)


class Served:
    """A listener on loopback and what it answers with."""

    def __init__(self, limits: Limits) -> None:
        self.app = Echo()
        self.listener = Listener(self.app, limits)
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return self.socket.getsockname()[1]

    async def connect(self) -> "Client":
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def send(self, data: bytes) -> "Client":
        client = await self.connect()
        client.send(data)
        return client


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_now(self, data: bytes) -> None:
        """Give bytes to the kernel without the event loop."""
        os.write(self.writer.get_extra_info("socket").fileno(), data)

    async def answer(self, with_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next response."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        size = int(headers["content-length"]) if with_body and "content-length" in headers else 0
        return int(head[0].split()[1]), headers, await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 20)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    """Listen until the block ends."""
    serving = Served(Limits(**{"max_body_bytes": 1 << 16} | limits))
    with serving.socket:
        await serving.listener.start(serving.socket)
        try:
            yield serving
        finally:
            serving.listener.close()
            for client in serving.clients:
                await client.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on the event loop that serves in production."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def post(body: bytes = b"", path: str = "/", extra: str = "") -> bytes:
    """A request."""
    return f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body
