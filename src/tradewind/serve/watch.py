"""What is told of each request that was answered: a seam for traces and for the names of other systems' metrics."""

import time
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tradewind.serve.http import Request, Response
from tradewind.serve.jobs import Job, Result
from tradewind.serve.routes import Work


class Finished(NamedTuple):
    """A request and what came of it; `job` is None where it never was in the queue, `result` where it failed."""

    request: Request
    route: str
    response: Response
    ended_s: float
    """On the monotonic clock, as are the instants of `request` and `job`."""
    program: str = ""
    job: Job | None = None
    result: Result | None = None
    version: str = ""
    """The model version that had it."""


Watcher = Callable[[Finished], None]
Respond = Callable[["Future[Result]"], Response]


def watched(
    watchers: Sequence[Watcher], request: Request, route: str, work: Work, respond: Respond
) -> Respond:
    """What `respond` does, and then telling the watchers of it."""

    def responded(future: "Future[Result]") -> Response:
        response = respond(future)
        failed = future.cancelled() or future.exception() is not None
        result = None if failed else future.result()
        ended_s, program, version = time.monotonic(), work.program, work.serving.version
        tell(watchers, Finished(request, route, response, ended_s, program, work.job, result, version))
        return response

    return responded if watchers else respond


def tell(watchers: Sequence[Watcher], finished: Finished) -> None:
    """Tell every watcher."""
    for watcher in watchers:
        watcher(finished)
