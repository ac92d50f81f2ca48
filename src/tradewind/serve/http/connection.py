"""One client's connection: requests in, answers out in the same order."""

import asyncio
import math
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import httptools

from tradewind.serve.http.arrival import Arrivals
from tradewind.serve.http.message import Head, Request, Response, failure
from tradewind.serve.http.turns import Turn, Turns

MAX_HEAD_BYTES = 1 << 16
MAX_KNOWN_BYTES = 1 << 11
"""The longest head that a connection remembers."""
MAX_BYTES_PER_BYTE = 8
"""Bytes that may be sent for each byte of body: chunks of one byte cost five more, honest ones next to nothing."""
MAX_HEADERS = 128
MAX_PIPELINED = 1024
"""Requests ahead of their answers, however few bytes they are."""
MAX_BEHIND = 2
"""Requests that one connection may send ahead of its answers before it is read no further."""
FIRST_REQUEST_S = 0.5
"""How long a connection that is new when draining begins may take to send what it was opened for."""
LINGER_S = 2.0
"""How long what a client still sends after its last answer is read and dropped: a reset could cost it that answer."""
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Limits(NamedTuple):
    """What one client may take."""

    max_body_bytes: int
    read_s: float = 30.0
    """From connecting, or from a request's first byte, to its last."""
    write_s: float = 30.0
    """For which a client may leave its answer unread."""
    keep_alive_s: float = 75.0
    """Between an answer and the next request."""
    max_connections: int = 1 << 14
    max_held_bytes: int = 1 << 28
    """Of all bodies together, from their first byte to the answer; one body is taken however large this is."""


class Pending(NamedTuple):
    """An answer to come: what `respond` makes of `future`, or what that leads to.

    `cancel` is called when the client leaves first; then `future` is cancelled, and `respond` called all the same.
    """

    future: "asyncio.Future[Any]"
    respond: Callable[["asyncio.Future[Any]"], "Response | Pending"]
    cancel: Callable[[], object]


class App(Protocol):
    """What answers requests."""

    def answer(self, request: Request) -> Response | Pending:
        """Answer a whole request, without blocking."""
        ...

    def turn(self, request: Request) -> Turn | None:
        """Say when to answer a whole request; None for one that waits for no other."""
        ...

    @property
    def may_refuse(self) -> bool:
        """Whether `refuse` has to be asked of every request: what it says may change, or it changes the head."""
        ...

    def refuse(self, request: Request) -> Response | None:
        """Refuse a request by its head, before its body is read; None lets it come."""
        ...

    def unread(self, response: Response) -> None:
        """Take note of an answer to a request that could not be read to its end."""
        ...


class Shared:
    """What the connections of one listener share."""

    def __init__(self, app: App, limits: Limits, turns: Turns) -> None:
        self.app = app
        self.limits = limits
        self.turns = turns
        self.connections: set[Connection] = set()
        self.draining = False
        self.held_bytes = 0
        self.date = b""
        self.arrivals = Arrivals()
        self.on_empty: Callable[[], None] = _nothing


class Connection:
    """Reads requests one behind the other, has each answered in its turn, and gives up on a client that stalls.

    An `asyncio.Protocol` in all but name: a compiled class cannot have an interpreted base.
    """

    __deletable__ = ("_parser",)
    """For the compiler: what may be deleted."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._socket: socket.socket
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._num_headers = 0
        self._bytes = 0
        self._head: Head | None = None
        """Of the last request that came in one piece."""
        self._whole: Request | None = None
        """The last request that ended in what is being parsed."""
        self._reading: Request | None = None
        """The request whose head is complete and whose body is not."""
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._held_bytes = 0
        """Of bodies that are being read, wait, or are being answered."""
        self._begun = False
        """A request's first byte has come and its last has not."""
        self._behind: deque[Request] = deque()
        self._current: Request | None = None
        """The request whose turn, or whose answer, is waited for."""
        self._respond: Callable[[asyncio.Future[Any]], Response | Pending]
        self._cancel: Callable[[], object] = _nothing
        self._last: Response | None = None
        """Sent after what is being answered; nothing is read after it."""
        self._writable = True
        self._served = False
        self._paused = False
        """Reading was stopped once: what comes may have waited longer than anybody looked."""
        self._closing = False
        self.expires_s = math.inf
        """When the listener calls `expire`."""

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._socket = socket.socket(fileno=transport.get_extra_info("socket").fileno())
        self._shared.connections.add(self)
        self._rest()
        if len(self._shared.connections) > self._shared.limits.max_connections:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket.detach()  # the transport closes it
        del self._parser  # it holds us as we hold it: nothing is to be left for the garbage collector
        self._closing = True
        self._behind.clear()
        self._release(self._held_bytes)
        self._cancel()
        self._shared.connections.discard(self)
        if not self._shared.connections:
            self._shared.on_empty()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._last is not None:
            return
        begins = not self._begun
        if begins and self._head is not None and self._is_like_the_last(data, self._head):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserUpgrade:
            return  # the request was answered as plain HTTP, and the connection ends after it
        except httptools.HttpParserError as error:
            self._end(failure(400, f"not HTTP: {error}"))
        whole, self._whole = self._whole, None
        if self._begun:
            self._bytes += len(data)
            self._refuse_excess()
        elif begins and whole is not None:
            self._remember(data, whole)

    def eof_received(self) -> None:
        """Nothing more comes: the transport closes."""

    def pause_writing(self) -> None:
        self._writable = False
        self._rest()

    def resume_writing(self) -> None:
        self._writable = True
        self._rest()
        self._advance()

    # What the parser says.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._num_headers, self._bytes = b"", {}, 0, 0
        self._chunks, self._body_bytes = [], 0
        self._begun = True
        self._rest()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:
            return  # a trailer, which nothing here has a use for
        self._num_headers += 1
        if self._num_headers > MAX_HEADERS:
            return  # refused once the head is complete
        name = name.lower()
        known = self._headers.get(name)
        self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, self._headers
        stays = parser.should_keep_alive() and not parser.should_upgrade()
        path = self._url.partition(b"?")[0].decode("latin-1")
        self._reading = Request(
            parser.get_method().decode(), path, headers, stays and parser.get_http_version() == "1.1"
        )
        if self._num_headers > MAX_HEADERS:
            self._end(failure(431, f"the request has more than {MAX_HEADERS} headers"))
        elif refusal := self._shared.app.refuse(self._reading):
            self._end(refusal)
        elif int(headers.get(b"content-length", 0)) > self._shared.limits.max_body_bytes:
            self._refuse_size()
        elif b"expect" in headers and self._current is None:
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._last is None:
            size = len(body)
            self._body_bytes += size
            self._chunks.append(body)
            self._hold(size)
            if self._body_bytes > self._shared.limits.max_body_bytes:
                self._refuse_size()
            elif self._shared.held_bytes > max(self._shared.limits.max_held_bytes, self._held_bytes):
                self._chunks = []
                self._end(failure(503, "too many large requests at once", (("retry-after", "1"),)))

    def on_message_complete(self) -> None:
        request, self._reading, self._begun = self._reading, None, False
        if self._last is not None or request is None:
            return
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._whole = request
        self._arrive(request)

    def _is_like_the_last(self, data: bytes, head: Head) -> bool:
        """Take a whole request that begins with the bytes the last one began with: they mean the same again."""
        if len(data) != head.num_bytes or not data.startswith(head.raw):
            return False
        num_bytes = head.num_bytes - len(head.raw)
        if self._shared.held_bytes + num_bytes > self._shared.limits.max_held_bytes:
            return False
        request = Request(head.method, head.path, head.headers, keep_alive=True)
        request.head, request.data, request.start = head, data, len(head.raw)
        self._hold(num_bytes)
        self._arrive(request)
        return True

    def _remember(self, data: bytes, request: Request) -> None:
        """Keep the head of a request that came in one piece, where its bytes say all there is to know of it."""
        size = data.find(b"\r\n\r\n") + 4
        if size > MAX_KNOWN_BYTES or size + request.num_bytes != len(data) or not request.keep_alive:
            return
        if not _SPECIAL.intersection(request.headers) and not self._shared.app.may_refuse:
            self._head = Head(data[:size], request)

    def _arrive(self, request: Request) -> None:
        watched = self._served and not self._paused
        request.arrived_s = self._shared.arrivals.arrived_s(self._socket, self._loop, watched=watched)
        if self._current is None and not self._behind and self._writable and not self._closing:
            self._begin(request)
            return
        self._behind.append(request)
        self._advance()
        if len(self._behind) > MAX_PIPELINED:
            self._end(failure(429, f"more than {MAX_PIPELINED} requests ahead of their answers"))
        if len(self._behind) > MAX_BEHIND and self._transport.is_reading():
            self._paused = True
            self._transport.pause_reading()

    # What this class does about it.

    def drain(self) -> None:
        """Answer what was asked, then close; a connection that waits for its next request closes at once."""
        if not self._served and not self._begun:
            self.expires_s = min(self.expires_s, time.monotonic() + FIRST_REQUEST_S)
        elif self._current is None and not self._begun:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def expire(self) -> None:
        """The client took longer than it may."""
        if self._closing or not self._writable:
            self._transport.abort()
        elif self._begun:
            self._end(failure(408, f"the request did not arrive inside {self._shared.limits.read_s:g} s"))
        else:
            self._transport.close()

    def _rest(self) -> None:
        """Set when the client's patience with us, or ours with it, ends."""
        limits = self._shared.limits
        if not self._writable:
            seconds = limits.write_s
        elif self._current is not None:
            seconds = math.inf
        else:
            seconds = limits.keep_alive_s if self._served and not self._begun else limits.read_s
        self.expires_s = time.monotonic() + seconds

    def _refuse_excess(self) -> None:
        """End a request that is large in another way than by its body: a head, chunk frames or trailers on end."""
        if self._reading is None and self._bytes > MAX_HEAD_BYTES:
            self._end(failure(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes"))
        elif self._bytes > MAX_HEAD_BYTES + MAX_BYTES_PER_BYTE * self._shared.limits.max_body_bytes:
            self._refuse_size()

    def _hold(self, num_bytes: int) -> None:
        self._held_bytes += num_bytes
        self._shared.held_bytes += num_bytes

    def _release(self, num_bytes: int) -> None:
        self._hold(-num_bytes)

    def _refuse_size(self) -> None:
        self._chunks = []
        self._end(failure(413, f"the request is larger than {self._shared.limits.max_body_bytes} bytes"))

    def _end(self, response: Response) -> None:
        """Read no further, and close once everything before this answer and itself are sent."""
        if self._last is None:
            self._last = response
            self._shared.app.unread(response)
            self._advance()

    def _advance(self) -> None:
        """Answer what has been read, as far as answers can be had and sent."""
        while self._behind and self._current is None and self._writable and not self._closing:
            self._begin(self._behind.popleft())
        if self._last is not None and not (self._current or self._behind or self._closing):
            self._send(self._last, keep_alive=False)
        if len(self._behind) <= MAX_BEHIND and not self._transport.is_reading():
            self._transport.resume_reading()

    def _begin(self, request: Request) -> None:
        turn = self._shared.app.turn(request)
        if turn is None:
            self._answer(request)
        else:
            self._wait_for(request)
            self._shared.turns.wait(turn, self._on_turn)

    def _on_turn(self) -> None:
        request, self._current = self._current, None
        if request is not None and not self._closing:
            self._answer(request)
            self._advance_others()

    def _answer(self, request: Request) -> None:
        answer = self._shared.app.answer(request)
        if isinstance(answer, Response):
            self._finish(request, answer)
            return
        self._wait_for(request)
        self._expect(answer)

    def _expect(self, answer: Pending) -> None:
        future, self._respond, self._cancel = answer
        future.add_done_callback(self._resolved)

    def _resolved(self, future: "asyncio.Future[Any]") -> None:
        request, self._current, self._cancel = self._current, None, _nothing
        answer = self._respond(future)
        if isinstance(answer, Pending):
            self._current = request
            self._expect(answer)
            if self._closing:  # since its future was resolved: nobody else will say so
                self._cancel()
        elif request is not None and not self._closing:
            self._finish(request, answer)
            self._advance_others()

    def _wait_for(self, request: Request) -> None:
        """Nobody is hurried while it is we who take our time."""
        self._current = request
        if self._writable:
            self.expires_s = math.inf

    def _advance_others(self) -> None:
        if self._behind or self._last is not None:
            self._advance()

    def _finish(self, request: Request, response: Response) -> None:
        self._release(request.num_bytes)
        keep_alive = request.keep_alive and not response.close and not self._shared.draining
        if not keep_alive:
            self._behind.clear()
        self._send(response, keep_alive, with_body=request.method != "HEAD")

    def _send(self, response: Response, keep_alive: bool, with_body: bool = True) -> None:
        head = response.head(self._shared.date, keep_alive)
        self._transport.write(b"".join((head, response.body)) if with_body else head)
        self._served = True
        self._rest()
        if not keep_alive:
            self._closing = True
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()  # TLS says goodbye by itself, and waits for the client's
            self.expires_s = time.monotonic() + LINGER_S


def _nothing() -> None:
    """Nothing is under way."""
