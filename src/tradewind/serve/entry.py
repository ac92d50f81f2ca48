"""From a request that has been read to a place in the queue, whatever the protocol."""

import time
from typing import Any, NamedTuple

from tradewind.serve.admission import waited_too_long
from tradewind.serve.caller import Caller
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.jobs import Job, Prepared
from tradewind.serve.ladder import floor_of


class Wish(NamedTuple):
    """On what terms a request is to be answered. `k` is the size of the answer, where it has one."""

    caller: Caller
    arrived_s: float
    deadline_s: float
    min_level: Any = None
    """The least level that it accepts, as it was stated; None for any."""
    k: int | None = None


def wait_until_s(dispatcher: Dispatcher, program: str, wish: Wish) -> float:
    """Return until when a request may wait for something else before it enters; the past where there is no time.

    Raises RequestError (400) for a level that there is not.
    """
    lane, now = dispatcher.lane(program), time.monotonic()
    _, arrived_s, deadline_s, min_level, k = wish
    accepts = lane.accepts(floor_of(min_level, lane.level_names), k)
    if waited_too_long(now - arrived_s, deadline_s - arrived_s):
        return arrived_s
    return lane.last_entry_s(deadline_s, now, accepts)


def enter(dispatcher: Dispatcher, program: str, prepared: Prepared, wish: Wish) -> Job:
    """Queue a request, or answer it at once where it came too late for the queue.

    Raises RequestError: 400 for a level that there is not, 429 where it cannot be answered in time.
    """
    lane = dispatcher.lane(program)
    caller, arrived_s, deadline_s, min_level, k = wish
    accepts = lane.accepts(floor_of(min_level, lane.level_names), k)
    if lane.instant and waited_too_long(time.monotonic() - arrived_s, deadline_s - arrived_s):
        return dispatcher.decline(program, prepared, deadline_s, caller, accepts)
    return dispatcher.submit(program, prepared, deadline_s, caller, accepts)
