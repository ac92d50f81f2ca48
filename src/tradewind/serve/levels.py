"""At which quality level the next batch runs: the best one at which nobody in the queue, or soon in it, is late."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tradewind.serve.batching import Queue, drains_in_time
from tradewind.serve.profile import Profile


class Pressure(NamedTuple):
    """What bears on a level besides the queue itself."""

    rows_per_s: float
    """How fast rows have come lately."""
    patience_s: float
    """The budget of a request that comes meanwhile."""
    num_workers: int = 1


def pick(queue: Queue, now: float, profiles: Sequence[Profile], pressure: Pressure) -> int:
    """Return the best level, by number, that clears `queue` in time; the last when none does.

    The level follows from what has to be cleared, not from what one request can afford: the first request of a
    burst could afford the best level, and all behind it would be refused. So everything that waits must drain in
    time at the level, and what comes while it drains must still make it at the cheapest level. Nothing is kept from
    one decision to the next: the queue that a slow batch leaves behind is the hysteresis.
    """
    last = len(profiles) - 1
    rows = sum(job.rows for job in queue) if last else 0
    for level, profile in enumerate(profiles[:last]):
        busy_s = _drain_s(rows, profile, pressure.num_workers)
        if not drains_in_time(queue, now, profile, pressure.num_workers):
            continue
        if leaves_room(busy_s, profiles[level + 1], pressure):
            return level
    return last


def leaves_room(busy_s: float, cheapest: Profile, pressure: Pressure) -> bool:
    """Whether what comes while the workers are busy for `busy_s` can still be answered in time at the cheapest level."""
    coming = coming_rows(pressure.rows_per_s * busy_s)
    return busy_s + _drain_s(coming + 1, cheapest, pressure.num_workers) <= pressure.patience_s


def coming_rows(expected: float) -> int:
    """Return how many rows to expect where so many come on average, one by one: two deviations more (Poisson)."""
    return int(expected + 2.0 * math.sqrt(expected))


def _drain_s(rows: int, profile: Profile, num_workers: int) -> float:
    full, rest = divmod(rows, profile.max_batch)
    whole_s = full * profile.bound_s(profile.max_batch) + (profile.bound_s(rest) if rest else 0.0)
    return max(whole_s / num_workers, profile.bound_s(min(rows, profile.max_batch)) if rows else 0.0)
