"""Which queued requests run next: by class, the earliest deadline first, as many as the tightest deadline allows."""

import bisect
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

from tradewind.serve.profile import WORTH, Profile


class Waiting(Protocol):
    """What batching needs to know of a queued request."""

    @property
    def key(self) -> Hashable: ...
    @property
    def rows(self) -> int: ...
    @property
    def due_s(self) -> float: ...
    @property
    def rank(self) -> int: ...
    @property
    def must_run(self) -> bool: ...
    @property
    def tries(self) -> int: ...


class Choice(NamedTuple):
    """Positions in the queue: those to run now as one batch, and those that can no longer make it."""

    run: list[int]
    late: list[int]


Queue = Sequence[Waiting]


def choose(queue: Queue, now: float, profile: Profile, max_batch: int, *, saturated: bool = False) -> Choice:
    """Pick the next batch for a worker that is idle now.

    `queue` holds class after class in the order of their precedence, each sorted by due time. An idle worker never
    waits for company: requests gather while it is busy, and waiting longer than that spends budget without raising
    throughput. Only requests with the same key as the first share a batch.

    All that waits goes into one batch when its tightest request can afford that. When it cannot, that one gets a
    smaller batch if the others of its class and above still make it afterwards, and is given up if they would not:
    under overload every request becomes urgent before its turn comes, and small batches for the urgent would make
    all the others late as well. One whose worker died in its midst is not given up for that: it had its turn.

    `saturated`: others like these have been refused for want of time. A small batch is then paid for by those to come,
    even if all that wait are in time after it, and the tight one is given up too where that does noticeably more a second.
    """
    if _all_fit(queue, now, profile, max_batch):
        return Choice([*range(len(queue))], [])
    late = [i for i in range(len(queue)) if _hopeless(queue[i], now, profile)]
    gone = set(late)
    left = [i for i in range(len(queue)) if i not in gone]
    if not left:
        return Choice([], late)
    peers = [i for i in left if queue[i].key == queue[left[0]].key]
    while True:
        batch = _fill(queue, peers, max_batch)
        tight = min((i for i in batch if not queue[i].must_run), key=lambda i: queue[i].due_s, default=None)
        if tight is None or queue[tight].due_s - now >= profile.bound_s(_rows(queue, batch)):
            return Choice(batch, late)
        small = _small_batch(queue, peers, tight, now, profile, max_batch)
        hurried = _too_tight(queue, peers, queue[tight].rank, now, profile)
        if queue[tight].tries or (
            _in_time_after(queue, small, peers, queue[tight].rank, now, profile)
            and not (saturated and hurried and _does_more(queue, peers, hurried, small, profile))
        ):
            return Choice(small, late)
        if not hurried:
            return Choice(small if hurried is None else batch, late)
        peers, late = _without(peers, hurried), late + hurried


def shared_rows(profile: Profile, patience_s: float, *, ahead: bool = False) -> int:
    """Return how large batches may be that several want to be in.

    Two of them fit into a request's patience, so that whoever comes while one runs can be in the next, whenever
    in the course of it that is: what decides about a request is then whose it is, and not when it came. Larger all the
    same where the model would do noticeably less in such batches than in those that one request can wait for.
    """
    sizes = range(1, profile.max_batch + 1)
    fitting = bisect.bisect_right(sizes, patience_s, key=lambda rows: two_s(profile, rows, ahead=ahead))
    longest = profile.largest_within(patience_s, profile.max_batch) or profile.max_batch
    return max(profile.worth_within(longest), fitting)


def two_s(profile: Profile, rows: int, *, ahead: bool) -> float:
    """Return how long a request may wait that has just missed a batch, and is in the next: each of so many rows.

    The first may be sent `ahead`, by as much as the one before it may end sooner than expected.
    """
    return 2.0 * profile.bound_s(rows) + (profile.spread_s(rows) if ahead else 0.0)


def drains_in_time(queue: Queue, now: float, profile: Profile, num_workers: int = 1) -> bool:
    """Whether everything that waits, run in full batches from now on, ends before it is due."""
    start_s, at = now, 0
    while at < len(queue):
        rows, due_s = 0, float("inf")
        while at < len(queue) and (rows == 0 or rows + queue[at].rows <= profile.max_batch):
            rows += queue[at].rows
            due_s = due_s if queue[at].must_run else min(due_s, queue[at].due_s)
            at += 1
        if start_s + profile.bound_s(rows) > due_s:
            return False
        start_s += profile.latency_s(rows) / num_workers
    return True


def _all_fit(queue: Queue, now: float, profile: Profile, max_batch: int) -> bool:
    """Whether all go into one batch that the tightest can afford: mostly so, and quick to see."""
    if not queue:
        return False
    rows, key = sum([job.rows for job in queue]), queue[0].key
    if rows > max_batch or [job for job in queue if job.key != key]:
        return False
    return min([job.due_s for job in queue]) - now >= profile.bound_s(rows)


def _hopeless(job: Waiting, now: float, profile: Profile) -> bool:
    return not job.must_run and job.due_s - now < profile.latency_s(job.rows)


def _fill(queue: Queue, peers: Sequence[int], room: int) -> list[int]:
    """Return the first of `peers`, and those after it that fit into `room` rows with it."""
    batch, rows = [peers[0]], queue[peers[0]].rows
    for i in peers[1:]:
        if rows >= room:
            break
        if rows + queue[i].rows <= room:
            batch.append(i)
            rows += queue[i].rows
    return batch


def _small_batch(
    queue: Queue, peers: Sequence[int], tight: int, now: float, profile: Profile, max_batch: int
) -> list[int]:
    """Return the largest batch that the tightest request can afford to be in."""
    room = profile.largest_within(queue[tight].due_s - now, max_batch)
    others = [i for i in peers if i != tight]
    return sorted(_fill(queue, [tight, *others], room))


def _in_time_after(
    queue: Queue, small: Sequence[int], peers: Sequence[int], rank: int, now: float, profile: Profile
) -> bool:
    """Whether those left of this class and above drain in time after the batch `small`."""
    rest = [queue[i] for i in _without(peers, small) if queue[i].rank <= rank]
    return drains_in_time(rest, now + profile.latency_s(_rows(queue, small)), profile)


def _does_more(
    queue: Queue, peers: Sequence[int], hurried: Sequence[int], small: Sequence[int], profile: Profile
) -> bool:
    """Whether the model does noticeably more a second in one batch without the hurried than in a small one and another."""
    most = profile.max_batch
    one = min(_rows(queue, _without(peers, hurried)), most)
    first, second = _rows(queue, small), min(_rows(queue, _without(peers, small)), most)
    both_s = profile.latency_s(first) + profile.latency_s(second)
    return WORTH * one * both_s > (first + second) * profile.latency_s(one)


def _too_tight(
    queue: Queue, peers: Sequence[int], rank: int, now: float, profile: Profile
) -> list[int] | None:
    """Return which of a class could not be in time in a batch of themselves, those after them, and other classes.

    By the bound where that leaves any of the class, else by the mean. None where it is all, and there is no other.
    """
    own = [i for i in peers if queue[i].rank == rank]
    beside = sum(queue[i].rows for i in peers if queue[i].rank != rank)
    behind = list(itertools.accumulate(queue[i].rows for i in reversed(own)))[::-1]
    rows = [min(n + beside, profile.max_batch) for n in behind]
    expectations: tuple[Callable[[int], float], ...] = (profile.bound_s, profile.latency_s)
    for expected_s in expectations:
        for at, i in enumerate(own):
            if queue[i].must_run or queue[i].due_s - now >= expected_s(rows[at]):
                return own[:at]
    return own if beside else None


def _without(peers: Sequence[int], batch: Sequence[int]) -> list[int]:
    gone = set(batch)
    return [i for i in peers if i not in gone]


def _rows(queue: Queue, batch: Sequence[int]) -> int:
    return sum(queue[i].rows for i in batch)
