"""One HTTP/1.1 keep-alive connection, hand built: a client library costs more than the request."""

import asyncio
import importlib
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from tradewind import names
from tradewind.errors import MissingExtraError, SpecError

Bodies = Sequence[bytes] | Callable[[int], bytes] | None
"""JSON bodies replayed in turn, a function of the request's number, or None for GET."""


class Target(NamedTuple):
    """Where requests go."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None


def parse_target(url: str, allow_remote: bool) -> Target:
    """The target of `url`; raises SpecError for another machine unless `allow_remote`."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise SpecError(f"{url}: not an http(s) URL; write it as http://127.0.0.1:8080/v1/recommend")
    if not allow_remote and not _is_loopback(host):
        raise SpecError(
            f"{url}: {host} is not this machine; load sent to others can take them down. "
            "If the endpoint is yours, add --allow-remote"
        )
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, parts.port or (443 if tls else 80), path, tls)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def build_request(target: Target, body: bytes | None, headers: dict[str, str]) -> bytes:
    """The bytes of one request: POST of a JSON `body`, or GET when there is none."""
    lines = {"host": f"{target.host}:{target.port}", "accept": "application/json"}
    if body is not None:
        lines |= {"content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.lower(): value for name, value in headers.items()}
    if any("\r" in text or "\n" in text for pair in lines.items() for text in pair):
        raise SpecError("load: a header holds a line break; write it as 'name: value'")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    verb = "GET" if body is None else "POST"
    return f"{verb} {target.path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


def request_source(target: Target, bodies: Bodies, headers: dict[str, str]) -> Callable[[int], bytes]:
    """A function from a request's number to its bytes; fixed bodies are built once."""
    if callable(bodies):
        return lambda ticket: build_request(target, bodies(ticket), headers)
    if bodies is not None and not bodies:
        raise SpecError("load: no bodies to send; the file is empty")
    replayed: Sequence[bytes | None] = [None] if bodies is None else bodies
    built = [build_request(target, body, headers) for body in replayed]
    return lambda ticket: built[ticket % len(built)]


def deadline_header(deadline_ms: float) -> dict[str, str]:
    """The header that says how long an answer is waited for."""
    return {names.HEADER_DEADLINE: f"{deadline_ms:g}"}


def with_less(request: bytes, deadline_ms: float, late_ms: int) -> bytes:
    """The bytes of a request, built with a deadline, of which so much is over."""
    line = _line(deadline_ms)
    at = request.find(line, 0, request.index(b"\r\n\r\n") + 2)
    if at < 0:
        return request  # its sender states another one
    return request[:at] + _line(max(deadline_ms - late_ms, 0.001)) + request[at + len(line) :]


def _line(deadline_ms: float) -> bytes:
    ((name, value),) = deadline_header(deadline_ms).items()
    return f"\r\n{name}: {value}\r\n".encode()


class Owner(Protocol):
    """Who sends on connections and hears what became of each request."""

    def answered(self, connection: "Connection", status: int) -> None:
        """A whole response arrived; the connection is free again unless it is closing."""

    def lost(self, connection: "Connection", why: str) -> None:
        """The connection is gone; the request in flight, if any, will have no answer."""


def http_parser() -> Any:
    """The httptools module; raises MissingExtraError when it is not installed."""
    try:
        return importlib.import_module("httptools")
    except ImportError as error:
        raise MissingExtraError(
            "tradewind load needs httptools: run `pip install 'tradewind[serve]'`"
        ) from error


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request in flight."""

    def __init__(self, owner: Owner, httptools: Any) -> None:
        self.owner = owner
        self.ticket = -1
        self.closing = False
        self._httptools = httptools
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def send(self, ticket: int, request: bytes) -> None:
        """Writes a request; `ticket` says which one until its answer or loss is reported."""
        assert self._transport is not None
        self.ticket = ticket
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except self._httptools.HttpParserCallbackError:
            raise
        except self._httptools.HttpParserError as error:
            self.abort(f"not HTTP: {error}")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.closing = True
        self.owner.answered(self, status)
        if self.closing and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closing or self.ticket >= 0:
            self.closing = True
            self.owner.lost(self, f"connection lost: {type(exc).__name__}" if exc else "connection closed")

    def abort(self, why: str) -> None:
        """Drops the connection at once and reports the loss."""
        if not self.closing:
            self.closing = True
            self.owner.lost(self, why)
        self.ticket = -1
        if self._transport is not None:
            self._transport.abort()
