"""Can this request finish in time? A pure answer from the profile, before any work is spent on it."""

from typing import NamedTuple

from tradewind.serve.profile import Profile

DOOR_SHARE = 0.1
"""A request that has spent this share of its budget before it was read is refused unread.

Reading costs as much as ranking a row. A front process that reads everything in turn, late or not, falls ever
further behind; one that turns the late away unread keeps its time for those it can still help.
"""
CLOCK_ERROR_S = 0.005
"""How wrong an arrival time may be: the kernel counts in ticks of up to 4 ms, the event loop in milliseconds."""
PROBE_AFTER_S = 1.0
MAX_CROWDING = 0.9


class Load(NamedTuple):
    """What stands before a new request."""

    free_at_s: float
    """When the first worker is free; `now` or earlier when one is idle."""
    rows_ahead: int
    """Queued rows of the same model that run before it: of classes above, and of its own with an earlier deadline."""
    seconds_ahead: float = 0.0
    """Model time of what other models have queued that runs before it."""
    crowding: float = 0.0
    """Share of the model's time that what still comes to the classes above takes."""
    rows_running: int = 0
    """Rows of its class and those above in the largest batch under way: the next one is likely to grow as large until
    it starts. Others are left out of a batch that would be late with them."""
    room: int = 0
    """Rows that batches have at most, where that is less than they may have."""
    num_workers: int = 1
    idle: bool = False
    """A worker has nothing to do, and nothing is queued."""
    unmeasured_s: float = 0.0
    """Seconds since a batch was last measured."""


class Verdict(NamedTuple):
    """Whether to take a request, when it is predicted to finish, and how long to stay away if not."""

    admit: bool
    finish_s: float
    retry_after_s: float


def waited_too_long(waited_s: float, budget_s: float) -> bool:
    """Whether to turn a request away at the door."""
    return waited_s - CLOCK_ERROR_S > DOOR_SHARE * budget_s


def surely_in_time(
    now: float,
    deadline_s: float,
    rows_waiting: int,
    free_at_s: float,
    profile: Profile,
    num_workers: int,
    room: int,
    *,
    crowded: bool,
) -> bool:
    """Whether `decide` says yes whatever the order is, with no other model's work: quick to say, and mostly enough.

    All that waits goes first, in batches of `room` rows, and the request rides in one more; `crowded` by classes
    above, all that takes as long as it ever may.
    """
    batch = min(room, profile.max_batch)
    full_s = profile.full_s if batch == profile.max_batch else profile.bound_s(batch)
    wait_s = (rows_waiting // batch + 1) // num_workers * full_s
    if crowded:
        wait_s /= 1.0 - MAX_CROWDING
    return max(now, free_at_s) + wait_s + full_s <= deadline_s


def decide(now: float, deadline_s: float, rows: int, load: Load, profile: Profile) -> Verdict:
    """Admit when the predicted completion meets the deadline; `deadline_s` is when the batch must have ended.

    The rows ahead drain in full batches over all workers; the request rides in the batch after those. An idle worker
    tries what was ever fast enough, and once in a while anything: a profile that says no would never be corrected.
    """
    batch = min(load.room or profile.max_batch, profile.max_batch)
    full, rest = divmod(load.rows_ahead, batch)
    if rest + rows > batch:
        full, rest = full + 1, 0
    rounds = full // load.num_workers
    wait_s = rounds * profile.bound_s(batch) + load.seconds_ahead / load.num_workers
    start = max(now, load.free_at_s) + wait_s / (1.0 - min(load.crowding, MAX_CROWDING))
    finish = start + profile.bound_s(min(max(rest + rows, load.rows_running), batch))
    late = finish - deadline_s
    tries = load.idle and (deadline_s - now >= profile.fastest_s or load.unmeasured_s > PROBE_AFTER_S)
    return Verdict(late <= 0 or tries, finish, max(late, 0.0))
