"""Which handler answers a path."""

from asyncio import Future
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from tradewind.serve.errors import RequestError
from tradewind.serve.features import Fetched
from tradewind.serve.http import Request, Response, Turn, failure
from tradewind.serve.jobs import Job, Result
from tradewind.serve.protocols.recommend import RecommendRequest
from tradewind.serve.protocols.unsupported import unsupported_path
from tradewind.serve.serving import Serving


class Work(NamedTuple):
    """A request in the dispatcher's hands, and what its result becomes."""

    serving: Serving
    """The version that has it."""
    program: str
    job: Job
    render: Callable[[Result], Response]
    fetched: Fetched | None = None
    """What came of fetching its user, where it names one."""


class Fetch(NamedTuple):
    """A request that waits for what is stored of its user, with no version: its route's `go_on` queues it then."""

    future: "Future[Fetched]"
    asked: RecommendRequest


Handler = Callable[[Request], Response | Work | Fetch]


class Route(NamedTuple):
    """What answers one path; `name` is its label in metrics and in the access log."""

    name: str
    method: str
    handle: Handler
    no_time: Callable[[Request], bool] = lambda request: False
    """Asked first, and cheap: whether to turn the request away unread."""
    turn: Callable[[Request], Turn | None] = lambda request: None
    """Asked before that, of every request: before whom it is looked at; None where it takes no time."""
    go_on: Callable[[Request, Fetch], Work] = lambda request, fetch: _gone()
    """Queues a request that `handle` had wait, once its `Fetch` is there; maybe at another version than that was of."""


class Routes:
    """The routes of a server by path, one method each; HEAD goes where GET does."""

    def __init__(self, routes: Mapping[str, Route], models: Mapping[str, object], version: str) -> None:
        self._routes = dict(routes)
        self._models = models
        self._version = version

    @property
    def methods(self) -> dict[str, str]:
        """The method of every path."""
        return {path: route.method for path, route in self._routes.items()}

    def find(self, request: Request) -> Route:
        """Return the route of a request; one that answers 404 or 405 where there is none. Looked up once."""
        if request.route is None or request.route[0] is not self:
            request.route = self, self._look_up(request)
        route: Route = request.route[1]
        return route

    def _look_up(self, request: Request) -> Route:
        route = self._routes.get(request.path) or self._routes.get(unquote(request.path))
        if route is None:
            return Route("none", request.method, self._missing)
        if request.method not in (route.method, "HEAD" if route.method == "GET" else None):
            return Route("none", request.method, lambda request: _not_allowed(request, route))
        return route

    def _missing(self, request: Request) -> Response:
        parts = unquote(request.path).split("/")
        if why := unsupported_path(parts):
            raise RequestError(400, why)
        raise RequestError(404, self._why_missing(parts))

    def _why_missing(self, parts: list[str]) -> str:
        if parts[:3] == ["", "v2", "models"] and len(parts) > 3:
            name = parts[3]
            if name not in self._models:
                return f"unknown model {name[:80]!r}; this server has {', '.join(self._models)}"
            if parts[4:5] == ["versions"] and parts[5:6] != [self._version]:
                return f"unknown version {''.join(parts[5:6])[:80]!r} of {name!r}; it is {self._version}"
        return "there is nothing here; /openapi.json lists what there is"


def _gone() -> NoReturn:
    raise RequestError(404, "there is nothing here any more; /openapi.json lists what there is")


def _not_allowed(request: Request, route: Route) -> Response:
    allowed = "GET, HEAD" if route.method == "GET" else route.method
    return failure(405, f"{request.method} is not allowed here; use {allowed}", (("allow", allowed),))
