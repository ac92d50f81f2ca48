"""Requests as they were read, and responses as bytes."""

import http
from typing import Any, NamedTuple

import msgspec

from tradewind.serve.caller import Claim, Stated
from tradewind.serve.quota import Quota
from tradewind.serve.wire import Buffer, nbytes_of

JSON = "application/json"
Headers = tuple[tuple[str, str], ...]
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}


class Head:
    """What comes before a request's body, and was read once: other requests may begin with the same bytes."""

    __slots__ = ("headers", "method", "num_bytes", "path", "raw", "stated")

    def __init__(self, raw: bytes, request: "Request") -> None:
        self.raw = raw
        self.num_bytes = len(raw) + request.num_bytes
        """Of a whole request."""
        self.method, self.path, self.headers = request.method, request.path, request.headers
        self.stated: Stated | None = None
        """What the headers say, once somebody has looked."""


class Request:
    """One whole request, its body as it came. `arrived_s`: when its last byte was here, on the monotonic clock."""

    __slots__ = (
        "arrived_s",
        "claim",
        "data",
        "head",
        "headers",
        "keep_alive",
        "method",
        "path",
        "quota",
        "route",
        "start",
    )

    def __init__(self, method: str, path: str, headers: dict[bytes, bytes], keep_alive: bool) -> None:
        self.method = method
        self.path = path
        """As it was sent, without the query: percent-encoded."""
        self.headers = headers
        """Names in lower case; the values of a repeated header joined with commas."""
        self.keep_alive = keep_alive
        self.data, self.start = b"", 0
        """What holds the body, and where it begins there."""
        self.arrived_s = 0.0
        self.quota: Quota | None = None
        """Of the tenant whose key it carried."""
        self.head: Head | None = None
        """What it has in common with others on its connection."""
        self.route: tuple[object, Any] | None = None
        """What answers its path, and who has looked it up."""
        self.claim: Claim | None = None
        """What its headers say, once somebody has looked."""

    @property
    def body(self) -> bytes:
        """The body alone: a copy the first time, where it came behind something else."""
        if self.start:
            self.data, self.start = self.data[self.start :], 0
        return self.data

    @body.setter
    def body(self, body: bytes) -> None:
        self.data, self.start = body, 0

    @property
    def num_bytes(self) -> int:
        """The body's."""
        return len(self.data) - self.start

    def header(self, name: bytes) -> str | None:
        """Return a header's value; `name` in lower case."""
        headers = self.headers
        return headers[name].decode("latin-1") if name in headers else None


class Response(NamedTuple):
    """An answer; `close` asks the client to use another connection for its next request."""

    status: int
    body: Buffer
    media_type: str = JSON
    headers: Headers = ()
    close: bool = False

    def head(self, date: bytes, keep_alive: bool) -> bytes:
        """Return the status line and headers."""
        fields = f"content-type: {self.media_type}\r\ncontent-length: {nbytes_of(self.body)}\r\n"
        for name, value in self.headers:
            fields += f"{name}: {value}\r\n"
        if not keep_alive:
            fields += "connection: close\r\n"
        return b"%bdate: %b\r\n%b\r\n" % (_STATUS_LINES[self.status], date, fields.encode("latin-1"))


def json_response(content: Any, status: int = 200, headers: Headers = ()) -> Response:
    """Return `content` as JSON."""
    return Response(status, msgspec.json.encode(content), headers=headers)


def failure(status: int, error: str, headers: Headers = ()) -> Response:
    """Return what every answer looks like that is not 2xx."""
    return json_response({"error": error}, status, headers)
