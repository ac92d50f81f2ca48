"""What happens around every route: errors become JSON, answers are counted, timed and logged once."""

import itertools
import math
import secrets
import time
from asyncio import Future
from collections.abc import Callable
from functools import partial

import structlog

from tradewind import names
from tradewind.serve.encoding import encoded
from tradewind.serve.errors import RequestError
from tradewind.serve.features import Fetched
from tradewind.serve.gate import Gate
from tradewind.serve.handlers import Handlers
from tradewind.serve.http import Pending, Request, Response, Turn, failure
from tradewind.serve.jobs import Result
from tradewind.serve.replica import Replica
from tradewind.serve.routes import Fetch, Route, Routes, Work
from tradewind.serve.watch import Finished

ACCEPT_ENCODING = b"accept-encoding"
REQUEST_ID = names.HEADER_REQUEST_ID.encode()
MAX_ID_CHARACTERS = 128
CLIENT_LEFT = 499
"""Counted and logged where the client closed its connection before it had its answer."""
NO_TIME = failure(429, "the server is too busy to answer this request in time", (("retry-after", "1"),))

log = structlog.get_logger()
RoutesOf = Callable[[Replica], Routes]
"""What makes the routes of the version that a replica serves now."""


def _over_http(replica: Replica) -> Routes:
    return Handlers(replica).routes()


class App:
    """Answers the requests of one replica."""

    def __init__(self, replica: Replica, routes_of: RoutesOf = _over_http, gate: Gate | None = None) -> None:
        self._replica = replica
        self._routes_of = routes_of
        self._serving, self._routes = replica.serving, routes_of(replica)
        self._gate = gate
        self._prefix, self._numbers = secrets.token_hex(8), itertools.count(1)

    @property
    def may_refuse(self) -> bool:
        return self._gate is not None

    def refuse(self, request: Request) -> Response | None:
        """Say no to a request of which only the head is known, or nothing. Never raises."""
        if self._gate is None:
            return None
        try:
            self._gate.admit(request, self._find(request).name)
        except Exception as error:  # noqa: BLE001 — a bug of ours is logged and answered there
            return _failed(error)
        return None

    def turn(self, request: Request) -> Turn | None:
        """Say when a request is answered, where that takes time that others want too. Never raises."""
        return self._find(request).turn(request)

    def answer(self, request: Request) -> Response | Pending:
        """Answer a request, or say what will. Never raises."""
        route = self._find(request)
        try:
            if route.no_time(request):
                return self._turn_away(route, request)
            answer = self._handle(route, request)
        except Exception as error:  # noqa: BLE001 — a bug of ours is logged and answered there
            answer = _failed(error)
        exchange = Exchange(
            self._replica, route.name, request, self._request_id(request), self._serving.version
        )
        if isinstance(answer, Work):
            return exchange.begin(answer)
        if isinstance(answer, Fetch):
            return Pending(answer.future, partial(self._fetched, exchange, answer), answer.future.cancel)
        return exchange.done(answer)

    def _fetched(self, exchange: "Exchange", fetch: Fetch, future: "Future[Fetched]") -> Response | Pending:
        """Queue a request that waited for its user, at the version that serves by now."""
        if future.cancelled():
            return exchange.end(Response(CLIENT_LEFT, b""))
        try:
            route = self._find(exchange.request)
            exchange.version = self._serving.version
            work = route.go_on(exchange.request, fetch)
        except Exception as error:  # noqa: BLE001 — a bug of ours is logged and answered there
            return exchange.end(_failed(error))
        return exchange.begin(work)

    def unread(self, response: Response) -> None:
        """Count an answer to a request that could not be read."""
        self._replica.metrics.observe_request("unread", response.status, 0.0, in_deadline=False)

    def _turn_away(self, route: Route, request: Request) -> Response:
        """Refuse it as cheaply as can be: at the door every microsecond is taken from those inside."""
        waited_s = time.monotonic() - request.arrived_s
        self._replica.metrics.observe_request(route.name, NO_TIME.status, waited_s, in_deadline=False)
        return NO_TIME

    def _find(self, request: Request) -> Route:
        """Return the route at the version that serves now: to be looked up again once the body is there."""
        if self._serving is not self._replica.serving:
            self._serving, self._routes = self._replica.serving, self._routes_of(self._replica)
        return self._routes.find(request)

    def _handle(self, route: Route, request: Request) -> Response | Work | Fetch:
        quota = request.quota
        if quota is not None:
            quota.check_size(request.num_bytes)
            quota.take(time.monotonic())
        answer = None
        try:
            answer = route.handle(request)
        finally:
            if quota is not None and not isinstance(answer, (Work, Fetch)):
                quota.leave()
        return answer

    def _request_id(self, request: Request) -> str:
        stated = request.header(REQUEST_ID)
        if stated and stated.isascii() and stated.isprintable():
            return stated[:MAX_ID_CHARACTERS]
        return f"{self._prefix}-{next(self._numbers)}"


class Exchange:
    """A request on its way to its answer; `work` is what it waits for, where it waits."""

    __slots__ = ("_replica", "_request_id", "_route", "request", "version", "work")

    def __init__(self, replica: Replica, route: str, request: Request, request_id: str, version: str) -> None:
        self._replica = replica
        self._route = route
        self.request = request
        self._request_id = request_id
        self.version = version
        self.work: Work | None = None

    def begin(self, work: Work) -> Pending:
        """Wait for what the dispatcher has in hand now."""
        self.work = work
        return Pending(work.job.future, self.respond, self.leave)

    def leave(self) -> None:
        """The client has left: give its place up."""
        assert self.work is not None
        self.work.serving.dispatcher.cancel(self.work.program, self.work.job)

    def respond(self, future: "Future[Result]") -> Response:
        """Return the answer once there is a result, or none to come."""
        assert self.work is not None
        result: Result | None = None
        if future.cancelled():
            response = Response(CLIENT_LEFT, b"")
        elif error := future.exception():
            # Not raised: its traceback would hold what holds it, and leave both to the garbage collector.
            response = _failed(error)
        else:
            result = future.result()
            try:
                response = self.work.render(result)
            except Exception as error:  # noqa: BLE001 — a bug of ours is logged and answered there
                response = _failed(error)
        return self.end(response, result)

    def end(self, response: Response, result: Result | None = None) -> Response:
        """Count a request out that had waited, and be done with it."""
        if self.request.quota is not None:
            self.request.quota.leave()
        return self.done(response, result)

    def done(self, response: Response, result: Result | None = None) -> Response:
        """Count, time, log and tell of an answer; return it with the headers that all have."""
        request, work, replica = self.request, self.work, self._replica
        if ACCEPT_ENCODING in request.headers:
            response = encoded(request, response)
        now = time.monotonic()
        in_deadline = work is not None and response.status == 200 and now <= work.job.deadline_s < math.inf
        replica.observe(self._route, self._request_id, response, now - request.arrived_s, in_deadline)
        status, body, media_type, headers, close = response
        headers = (
            *headers,
            (names.HEADER_REQUEST_ID, self._request_id),
            (names.HEADER_VERSION, self.version),
        )
        response = Response(status, body, media_type, headers, close or replica.draining)
        if replica.watchers:
            about = (
                () if work is None else (work.program, work.job, result, work.serving.version, work.fetched)
            )
            finished = Finished(request, self._route, response, now, *about)
            for watcher in replica.watchers:
                watcher(finished)
        return response


def _failed(error: BaseException) -> Response:
    if isinstance(error, RequestError):
        again = error.retry_after_s
        wait = () if again is None else (("retry-after", str(max(1, round(again)))),)
        return failure(error.status, str(error), wait)
    log.error("bug", exc_info=error)  # of ours: the client sees a 500, the log the traceback
    return failure(500, "internal error; the server's log says where")
