"""Which queued requests run next: earliest deadline first, as many as the earliest deadline allows."""

import itertools
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
    spends budget without raising throughput. Only requests with the same key share a batch.

    All that waits goes into one batch when its first request can afford that. When it cannot, it gets a smaller batch
    if the others still make it afterwards, and is given up if they would not: under overload every request becomes
    urgent before its turn comes, and small batches for the urgent would make all the others late as well.
    """
    head = 0
    while head < len(queue) and _hopeless(queue[head], now, profile):
        head += 1
    late = list(range(head))
    if head == len(queue):
        return Choice([], late)
    peers = [i for i in range(head, len(queue)) if queue[i].key == queue[head].key]
    left_s = queue[head].deadline_s - now
    batch = _fill(queue, peers, max_batch)
    if queue[head].must_run or left_s >= profile.bound_s(_rows(queue, batch)):
        return Choice(batch, late)
    small = _fill(queue, peers, profile.largest_within(left_s, max_batch))
    if _rest_in_time(queue, peers, small, now, profile):
        return Choice(small, late)
    first = _first_in_time(queue, peers, now, profile)
    if first is None:
        return Choice(small, late)
    return Choice(_fill(queue, peers[first:], max_batch), late + peers[:first])


def _hopeless(job: Waiting, now: float, profile: Profile) -> bool:
    return not job.must_run and job.deadline_s - now < profile.latency_s(job.rows)


def _fill(queue: Sequence[Waiting], peers: Sequence[int], room: int) -> list[int]:
    """Return the first of `peers`, and those after it that fit into `room` rows with it."""
    batch, rows = [peers[0]], queue[peers[0]].rows
    for i in peers[1:]:
        if rows >= room:
            break
        if rows + queue[i].rows <= room:
            batch.append(i)
            rows += queue[i].rows
    return batch


def _rest_in_time(
    queue: Sequence[Waiting], peers: Sequence[int], small: Sequence[int], now: float, profile: Profile
) -> bool:
    """Whether what is left after the batch `small` drains in full batches before its deadlines."""
    free_s, rest = now + profile.latency_s(_rows(queue, small)), _without(peers, small)
    while rest:
        batch = _fill(queue, rest, profile.max_batch)
        rows = _rows(queue, batch)
        if free_s + profile.bound_s(rows) > queue[batch[0]].deadline_s:
            return False
        free_s, rest = free_s + profile.latency_s(rows), _without(rest, batch)
    return True


def _first_in_time(
    queue: Sequence[Waiting], peers: Sequence[int], now: float, profile: Profile
) -> int | None:
    """Return which of `peers` is the first in time in a batch of itself and those after it: by the bound, else the mean."""
    behind = list(itertools.accumulate(queue[i].rows for i in reversed(peers)))[::-1]
    rows = [min(n, profile.max_batch) for n in behind]
    for expected_s in (profile.bound_s, profile.latency_s):
        for at, i in enumerate(peers):
            if queue[i].deadline_s - now >= expected_s(rows[at]):
                return at
    return None


def _without(peers: Sequence[int], batch: Sequence[int]) -> list[int]:
    gone = set(batch)
    return [i for i in peers if i not in gone]


def _rows(queue: Sequence[Waiting], batch: Sequence[int]) -> int:
    return sum(queue[i].rows for i in batch)
