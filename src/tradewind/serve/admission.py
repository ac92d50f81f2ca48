"""Can this request finish in time? A pure answer from the profile, before any work is spent on it."""

from typing import NamedTuple

from tradewind.serve.profile import Profile


class Load(NamedTuple):
    """What stands before a new request."""

    free_at_s: float
    """When the first worker is free; `now` or earlier when one is idle."""
    rows_ahead: int
    """Queued rows with an earlier deadline."""
    num_workers: int = 1
    probe: bool = False
    """Nothing has been measured for a while: one request may try although the profile says no."""


class Verdict(NamedTuple):
    """Whether to take a request, when it is predicted to finish, and how long to stay away if not."""

    admit: bool
    finish_s: float
    retry_after_s: float


def decide(now: float, deadline_s: float, rows: int, load: Load, profile: Profile) -> Verdict:
    """Admit when the predicted completion meets the deadline.

    The rows ahead drain in full batches over all workers; the request rides in the batch after those.
    """
    batch = profile.max_batch
    full, rest = divmod(load.rows_ahead, batch)
    if rest + rows > batch:
        full, rest = full + 1, 0
    rounds = full // load.num_workers
    start = max(now, load.free_at_s) + rounds * profile.latency_s(batch)
    finish = start + profile.bound_s(min(rest + rows, batch))
    late = finish - deadline_s
    return Verdict(late <= 0 or load.probe, finish, max(late, 0.0))
