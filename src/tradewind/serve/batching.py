"""Which queued requests run next: earliest deadline first, as many as the earliest deadline allows."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from tradewind.serve.profile import Profile


class Waiting(Protocol):
    """What batching needs to know of a queued request."""

    @property
    def key(self) -> Hashable: ...
    @property
    def rows(self) -> int: ...
    @property
    def deadline_s(self) -> float: ...
    @property
    def must_run(self) -> bool: ...


class Choice(NamedTuple):
    """Positions in the queue: those to run now as one batch, and those that can no longer make it."""

    run: list[int]
    late: list[int]


def choose(queue: Sequence[Waiting], now: float, profile: Profile, max_batch: int) -> Choice:
    """Pick the next batch from a queue sorted by deadline, for a worker that is idle now.

    An idle worker never waits for company: requests gather while it is busy, and waiting longer than that
    spends budget without raising throughput. Requests that would end late even alone are given up first, so
    the earliest deadline that remains sets the size. Only requests with the same key share a batch.
    """
    late = []
    for head, job in enumerate(queue):
        if job.must_run or job.deadline_s - now >= profile.latency_s(job.rows):
            break
        late.append(head)
    else:
        return Choice([], late)
    first = queue[head]
    room = profile.largest_within(first.deadline_s - now, max_batch)
    run, rows = [head], first.rows
    for i in range(head + 1, len(queue)):
        if rows >= room:
            break
        if queue[i].key == first.key and rows + queue[i].rows <= room:
            run.append(i)
            rows += queue[i].rows
    return Choice(run, late)
