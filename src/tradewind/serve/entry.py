"""From a request that has been read to a place in the queue, whatever the protocol."""

import time
from typing import NamedTuple

from tradewind import names
from tradewind.serve.admission import waited_too_long
from tradewind.serve.caller import Callers, Header
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.jobs import Job, Prepared
from tradewind.serve.ladder import floor_of

MIN_LEVEL = names.HEADER_MIN_LEVEL.encode()


class Wish(NamedTuple):
    """What a request asks for besides its answer; `header` gives headers or metadata by their names in lower case.

    `priority` and `min_level` are what the body states, and count before the headers. `k` is the size of the answer,
    where it has one. `tenant` is one that the caller has proven to be.
    """

    header: Header
    arrived_s: float
    deadline_s: float
    priority: object = None
    min_level: object = None
    k: int | None = None
    tenant: str | None = None


def enter(dispatcher: Dispatcher, callers: Callers, program: str, prepared: Prepared, wish: Wish) -> Job:
    """Queue a request, or answer it at once where it came too late for the queue.

    Raises RequestError: 400 for a class or a level that there is not, 429 where it cannot be answered in time.
    """
    caller = callers.caller_of(wish.header, wish.priority, tenant=wish.tenant)
    lane = dispatcher.lane(program)
    stated = wish.header(MIN_LEVEL) if wish.min_level is None else wish.min_level
    floor = lane.floor(floor_of(stated, lane.level_names), wish.k)
    waited_s, budget_s = time.monotonic() - wish.arrived_s, wish.deadline_s - wish.arrived_s
    late = waited_too_long(waited_s, budget_s)
    enter = dispatcher.decline if late and lane.instant else dispatcher.submit
    return enter(program, prepared, wish.deadline_s, caller, floor)
