"""What is told of each request that was answered: a seam for traces and for the names of other systems' metrics."""

from collections.abc import Callable
from typing import NamedTuple

from tradewind.serve.features import Fetched
from tradewind.serve.http import Request, Response
from tradewind.serve.jobs import Job, Result


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
    fetched: Fetched | None = None
    """What came of fetching its user, where it names one."""


Watcher = Callable[[Finished], None]
