"""The gRPC port of a replica: HTTP/2 and its limits are the library's; what answers is the same as over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio
import msgspec

from tradewind import names
from tradewind.errors import SpecError
from tradewind.serve.app import App
from tradewind.serve.grpc.messages import RESPONSES, SERVICE, path
from tradewind.serve.http import Pending, Request, Response, failure
from tradewind.serve.protocols.unsupported import unsupported_call
from tradewind.serve.tls import Certificates

INFER, STREAM = path("ModelInfer"), path("ModelStreamInfer")
DEADLINE = names.HEADER_DEADLINE.encode()
OVERHEAD_BYTES = 1 << 16
"""Beside a request's tensors: names, shapes and parameters."""
READ_S = 30.0
"""From a call's headers to the last byte of its message."""
STREAM_IDLE_S = 75.0
"""Between two requests of one stream."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
CODINGS = frozenset({"accept-encoding", "content-encoding"})
"""Headers that mean HTTP's own compression; gRPC has another, which the library sees to."""
Context = grpc.aio.ServicerContext[Any, Any]


class Limits(NamedTuple):
    """What clients may take."""

    max_message_bytes: int
    max_calls: int = 1024
    """At once, over all connections; this many messages may be in memory."""
    max_connections: int = 1 << 12
    max_streams: int = 128
    """At once on one connection."""
    max_metadata_bytes: int = 1 << 14
    idle_s: float = 300.0
    """After which a connection without calls is closed."""
    age_s: float = 3600.0
    """After which a connection is asked to leave; its calls have `READ_S` to end."""

    def options(self) -> list[tuple[str, int]]:
        """Return them as the library's channel arguments."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes + OVERHEAD_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_connection_idle_ms", int(self.idle_s * 1e3)),
            ("grpc.max_connection_age_ms", int(self.age_s * 1e3)),
            ("grpc.max_connection_age_grace_ms", int(READ_S * 1e3)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.so_reuseport", 0),
        ]


class GrpcServer:
    """Answers calls until `drain`."""

    def __init__(self, app: App, limits: Limits) -> None:
        self._server = grpc.aio.server(
            handlers=(Calls(app),), options=limits.options(), maximum_concurrent_rpcs=limits.max_calls
        )

    async def start(self, host: str, port: int, certificates: Certificates | None = None) -> int:
        """Listen; return the port. Raises SpecError when it cannot."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificates is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, _credentials(certificates))
        except RuntimeError as error:
            raise SpecError(f"cannot listen on {address} for gRPC: {error}") from None
        await self._server.start()
        return bound

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls, and return when those in flight have ended or the time is up."""
        await self._server.stop(timeout_s)


class Calls(grpc.GenericRpcHandler):
    """Finds what handles a call. Its headers are looked at before its message is read."""

    def __init__(self, app: App) -> None:
        self._app = app

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        called = handler_call_details.method
        service, _, call = called.removeprefix("/").rpartition("/")
        if called == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        if service == SERVICE and call in RESPONSES:
            return grpc.stream_unary_rpc_method_handler(partial(self._call, called))
        return grpc.stream_unary_rpc_method_handler(partial(_unsupported, call))

    async def _call(self, called: str, _: object, context: Context) -> bytes:
        request = _request(called, context)
        response = self._app.refuse(request)
        if response is None:
            response = await self._read_and_answer(request, context)
        if response.status != 200:
            await _abort(context, response)
        context.set_trailing_metadata(response.headers)
        return bytes(response.body)

    async def _read_and_answer(self, request: Request, context: Context) -> Response:
        try:
            message = await _next(context, READ_S)
        except TimeoutError:
            return failure(408, f"the message did not arrive inside {READ_S:g} s")
        if message is None:
            return failure(400, "the call has no message")
        request.body = message
        return await self._answer(request)

    async def _answer(self, request: Request) -> Response:
        answer = self._app.answer(request)
        return await _settled(answer) if isinstance(answer, Pending) else answer

    async def _stream(self, _: object, context: Context) -> AsyncIterator[bytes]:
        """Answer each request of a stream in its turn: one answer each, errors among them."""
        head = _request(INFER, context)
        if refusal := self._app.refuse(head):
            await _abort(context, refusal)
        while (message := await _next(context, STREAM_IDLE_S)) is not None:
            request = Request(head.method, head.path, dict(head.headers), keep_alive=True)
            request.arrived_s, request.body, request.quota = _now(), message, head.quota
            response = await self._answer(request)
            yield _streamed(response)


async def _next(context: Context, timeout_s: float) -> bytes | None:
    """Return the next message, None where there is none. Raises TimeoutError. (`asyncio.timeout` costs 50 us here.)"""
    task, stalled = asyncio.current_task(), False
    assert task is not None

    def stall() -> None:
        nonlocal stalled
        stalled = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, stall)
    try:
        message = await context.read()
    except asyncio.CancelledError:
        if stalled and not task.uncancel():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
    return None if message is grpc.aio.EOF else message


async def _settled(pending: Pending) -> Response:
    """Wait for an answer; a client that leaves takes its request out of the queue."""
    try:
        await asyncio.wait((pending.future,))
    except asyncio.CancelledError:
        pending.cancel()
        pending.respond(pending.future)
        raise
    answer = pending.respond(pending.future)
    return await _settled(answer) if isinstance(answer, Pending) else answer


async def _abort(context: Context, response: Response) -> NoReturn:
    left_s = context.time_remaining()
    late = response.status == 429 and left_s is not None and left_s <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if late else CODES[response.status]
    await context.abort(code, reason(response), response.headers)


async def _unsupported(call: str, _: object, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, unsupported_call(call))


def _request(called: str, context: Context) -> Request:
    """Return the call as a request: its metadata as headers, the client's deadline among them."""
    headers: dict[bytes, bytes] = {}
    for name, value in context.invocation_metadata() or ():
        if name not in CODINGS:
            headers[name.encode()] = value if isinstance(value, bytes) else value.encode()
    request = Request("POST", called, headers, keep_alive=True)
    request.arrived_s = _now()
    left_s = context.time_remaining()
    if left_s is not None:
        left_ms = max(left_s * 1e3, 1e-3)
        stated = headers.get(DEADLINE)
        headers[DEADLINE] = b"%.3f" % left_ms if stated is None else _smaller(stated, left_ms)
    return request


def _smaller(stated: bytes, left_ms: float) -> bytes:
    try:
        return stated if float(stated) < left_ms else b"%.3f" % left_ms
    except ValueError:
        return stated  # refused where it is read


def _now() -> float:
    """Return when this round of the loop began, or now on a loop whose clock does not stand still."""
    return min(time.monotonic(), asyncio.get_running_loop().time())


def _streamed(response: Response) -> bytes:
    answer = RESPONSES["ModelStreamInfer"]()
    if response.status == 200:
        answer.infer_response.ParseFromString(bytes(response.body))
    else:
        answer.error_message = reason(response)
    encoded: bytes = answer.SerializeToString()
    return encoded


def reason(response: Response) -> str:
    """Return the sentence of an answer that is not 200."""
    found: dict[str, str] = msgspec.json.decode(response.body, type=dict[str, str])
    return found["error"]


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials that look for renewed certificates at each handshake."""
    given = certificates.files

    def configuration() -> grpc.ServerCertificateConfiguration:
        files = certificates.files
        return grpc.ssl_server_certificate_configuration([(files.key, files.cert)], files.client_ca)

    def renewed() -> Any:
        nonlocal given
        if certificates.files is given:
            return None
        given = certificates.files
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), renewed, require_client_authentication=given.client_ca is not None
    )
