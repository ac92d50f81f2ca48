"""What happens around every route: errors become JSON, answers are counted, timed and logged once."""

import itertools
import math
import secrets
import time
from asyncio import Future
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from tradewind import names
from tradewind.serve.encoding import encoded
from tradewind.serve.errors import RequestError
from tradewind.serve.gate import Gate
from tradewind.serve.handlers import Handlers
from tradewind.serve.http import Pending, Request, Response, Turn, failure
from tradewind.serve.jobs import Result
from tradewind.serve.quota import Quota
from tradewind.serve.replica import Replica
from tradewind.serve.routes import Route, Routes, Work
from tradewind.serve.watch import Finished, tell, watched

REQUEST_ID = names.HEADER_REQUEST_ID.encode()
MAX_ID_CHARACTERS = 128
CLIENT_LEFT = 499
"""Counted and logged where the client closed its connection before it had its answer."""
NO_TIME = failure(429, "the server is too busy to answer this request in time", (("retry-after", "1"),))

log = structlog.get_logger()
Answer = TypeVar("Answer")
RoutesOf = Callable[[Replica], Routes]
"""What makes the routes of the version that a replica serves now."""


def _over_http(replica: Replica) -> Routes:
    return Handlers(replica).routes()


class Exchange(NamedTuple):
    """A request on its way to its answer."""

    route: str
    request_id: str
    request: Request
    version: str
    quota: Quota | None = None
    """Taken from when the request was let in; left when it is answered."""


class App:
    """Answers the requests of one replica."""

    def __init__(self, replica: Replica, routes_of: RoutesOf = _over_http, gate: Gate | None = None) -> None:
        self._replica = replica
        self._routes_of = routes_of
        self._serving, self._routes = replica.serving, routes_of(replica)
        self._gate = gate
        self._prefix, self._numbers = secrets.token_hex(8), itertools.count(1)

    def refuse(self, request: Request) -> Response | None:
        """Say no to a request of which only the head is known, or nothing. Never raises."""
        if self._gate is None:
            return None
        gate, route = self._gate, self._find(request)
        return _guarded(lambda: gate.admit(request, route.name))

    def turn(self, request: Request) -> Turn | None:
        """Say when a request is answered, where that takes time that others want too. Never raises."""
        return self._find(request).turn(request)

    def answer(self, request: Request) -> Response | Pending:
        """Answer a request, or say what will. Never raises."""
        route = self._find(request)
        answer = _guarded(lambda: NO_TIME if route.no_time(request) else self._handle(route, request))
        if answer is NO_TIME:
            waited_s = time.monotonic() - request.arrived_s
            self._replica.metrics.observe_request(route.name, NO_TIME.status, waited_s, in_deadline=False)
            return NO_TIME  # as it is: at the door every microsecond is taken from those inside
        quota = request.quota if isinstance(answer, Work) else None
        exchange = Exchange(route.name, self._request_id(request), request, self._serving.version, quota)
        if isinstance(answer, Response):
            response = self._done(exchange, answer)
            tell(self._replica.watchers, Finished(request, route.name, response, time.monotonic()))
            return response
        leave = partial(answer.serving.dispatcher.cancel, answer.program, answer.job)
        answered = partial(self._respond, exchange, answer)
        respond = watched(self._replica.watchers, request, route.name, answer, answered)
        return Pending(answer.job.future, respond, leave)

    def unread(self, response: Response) -> None:
        """Count an answer to a request that could not be read."""
        self._replica.metrics.observe_request("unread", response.status, 0.0, in_deadline=False)

    def _find(self, request: Request) -> Route:
        """Return the route at the version that serves now: to be looked up again once the body is there."""
        if self._serving is not self._replica.serving:
            self._serving, self._routes = self._replica.serving, self._routes_of(self._replica)
        return self._routes.find(request)

    def _handle(self, route: Route, request: Request) -> Response | Work:
        quota = request.quota
        if quota is not None:
            quota.check_size(len(request.body))
            quota.take(time.monotonic())
        answer = None
        try:
            answer = route.handle(request)
        finally:
            if quota is not None and not isinstance(answer, Work):
                quota.leave()
        return answer

    def _respond(self, exchange: Exchange, work: Work, future: "Future[Result]") -> Response:
        if future.cancelled():
            response = Response(CLIENT_LEFT, b"")
        elif error := future.exception():
            # Not raised: its traceback would hold what holds it, and leave both to the garbage collector.
            response = _failed(error)
        else:
            response = _guarded(lambda: work.render(future.result()))
        return self._done(exchange, response, work.job.deadline_s)

    def _done(self, exchange: Exchange, response: Response, deadline_s: float = math.inf) -> Response:
        route, request_id, request, version, quota = exchange
        if quota is not None:
            quota.leave()
        response = encoded(request, response)
        now = time.monotonic()
        in_deadline = response.status == 200 and now <= deadline_s < math.inf
        self._replica.observe(route, request_id, response, now - request.arrived_s, in_deadline)
        headers = (
            *response.headers,
            (names.HEADER_REQUEST_ID, request_id),
            (names.HEADER_VERSION, version),
        )
        close = response.close or self._replica.draining
        return Response(response.status, response.body, response.media_type, headers, close)

    def _request_id(self, request: Request) -> str:
        stated = request.header(REQUEST_ID)
        if stated and stated.isascii() and stated.isprintable():
            return stated[:MAX_ID_CHARACTERS]
        return f"{self._prefix}-{next(self._numbers)}"


def _guarded(call: Callable[[], Answer]) -> Answer | Response:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 — a bug of ours is logged and answered there
        return _failed(error)


def _failed(error: BaseException) -> Response:
    if isinstance(error, RequestError):
        again = error.retry_after_s
        wait = () if again is None else (("retry-after", str(max(1, round(again)))),)
        return failure(error.status, str(error), wait)
    log.error("bug", exc_info=error)  # of ours: the client sees a 500, the log the traceback
    return failure(500, "internal error; the server's log says where")
