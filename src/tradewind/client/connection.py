"""One HTTP/1.1 connection to an endpoint: one request, one answer, then the next."""

import asyncio
import importlib
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from tradewind.client.errors import BrokenAnswer, Unreachable
from tradewind.errors import MissingExtraError, SpecError


class Address(NamedTuple):
    """Where an endpoint listens; `path` is put before every path that is asked for."""

    url: str
    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """What the `host` header says."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Answer(NamedTuple):
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_url(url: str, tls: ssl.SSLContext | None = None) -> Address:
    """The address in `http://host:port` or `https://...`. Raises SpecError when it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SpecError(f"{url}: not an endpoint's URL; write it as http://127.0.0.1:8080")
    secure = parts.scheme == "https"
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise SpecError(f"{url}: {error}") from None
    context = (tls or ssl.create_default_context()) if secure else None
    return Address(url, parts.hostname, port, parts.path.rstrip("/"), context)


def http_parser() -> Any:
    """The httptools module. Raises MissingExtraError where it is not installed."""
    try:
        return importlib.import_module("httptools")
    except ImportError as error:
        raise MissingExtraError(
            "the client needs httptools: run `pip install 'tradewind[client]'`"
        ) from error


class Connection(asyncio.Protocol):
    """A kept-alive connection. An exchange that is cancelled closes it, which tells the server to stop."""

    def __init__(self, url: str, httptools: Any) -> None:
        self._url = url
        self._httptools = httptools
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[Answer] | None = None
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._begun = False
        """The first byte of an answer has come."""
        self.usable = True
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def exchange(self, request: Sequence[bytes]) -> Answer:
        """Send a request and wait for the whole answer.

        Raises Unreachable when the connection is lost before the answer begins, BrokenAnswer after.
        """
        if not self.usable:
            raise Unreachable("the connection was closed", endpoint=self._url)
        self._begun, self._headers, self._chunks = False, {}, []
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.writelines(request)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            self.close(at_once=True)
            raise
        finally:
            self._waiter = None

    def close(self, at_once: bool = False) -> None:
        """Close; what is unsent or unread is dropped if `at_once`."""
        self.usable = False
        if at_once:
            self._transport.abort()
        else:
            self._transport.close()

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if not self.lost.done():
            self.lost.set_result(None)
        self._fail(f"the connection was lost ({exc or 'closed by the server'})")

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.close(at_once=True)  # nobody asked
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except self._httptools.HttpParserCallbackError:
            raise
        except self._httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
            self.close(at_once=True)

    # What the parser says.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = {}
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(Answer(status, self._headers, body))
        if not self.usable:
            self._transport.close()

    def _fail(self, why: str) -> None:
        if self._waiter is None or self._waiter.done():
            return
        kind = BrokenAnswer if self._begun else Unreachable
        self._waiter.set_exception(kind(why, endpoint=self._url))


class Pool:
    """The connections to one endpoint: the one that was used last is used next."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._httptools = http_parser()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    async def exchange(self, request: Sequence[bytes]) -> Answer:
        """Send a request on a free connection or a new one; as many as are needed are opened."""
        connection = self._take() or await self._connect()
        self._busy.add(connection)
        try:
            return await connection.exchange(request)
        finally:
            self._busy.discard(connection)
            if connection.usable:
                self._idle.append(connection)

    async def close(self) -> None:
        """Drop every connection and wait until they are gone; calls in flight fail."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        for connection in connections:
            connection.close(at_once=True)
        await asyncio.gather(*(connection.lost for connection in connections))

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        url, host, port, _, tls = self.address
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(url, self._httptools), host, port, ssl=tls
            )
        except OSError as error:
            raise Unreachable(f"cannot connect: {error}", endpoint=url) from error
        return connection
