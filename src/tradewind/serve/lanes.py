"""The queue of one served model: a queue by deadline for each class, and the levels that it can be answered at."""

import bisect
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from tradewind.serve.jobs import Job, Prepared, Tensor, rows_of
from tradewind.serve.profile import Profile
from tradewind.serve.smooth import Flow, Smooth

SPARE_SHARE = 0.1
"""Of each budget, kept for batches that take longer than they should, and for the way to whoever asked. What was planned
to end just in time would be late with them, and the work on it lost. A request that accepts an answer without a worker is
given that from it; one whose worker died has it for its second run, and those behind it for theirs.
"""

Tensors = Mapping[str, Tensor]
Lost = Callable[[Tensors, Tensors], float]
"""How much worse the second answer is than the first, from 0 to 1."""


class Level(NamedTuple):
    """One way to answer: a program of the worker and how long it takes.

    `most` is the largest answer that the level can give, where a request asks for a size.
    """

    name: str
    program: str
    profile: Profile
    most: int | None = None


class Instant(NamedTuple):
    """The last level, where there is one: an answer that needs no worker; None where it has none to this request."""

    name: str
    answer: Callable[[Prepared], dict[str, Tensor] | None]


class Accepts(NamedTuple):
    """What may answer a request: the workers' levels up to this one, the cheapest, and perhaps the one without a worker."""

    floor: int
    instant: bool


class Lane:
    """What waits for one model, and what rules it."""

    def __init__(
        self,
        name: str,
        levels: Sequence[Level],
        num_classes: int = 1,
        window_s: float = 0.05,
        instant: Instant | None = None,
        lost: Lost | None = None,
    ) -> None:
        self.name = name
        self.levels = tuple(levels)
        self.cheapest = self.levels[-1]
        """The level with the least work for the model."""
        self._surely = min((level.most for level in levels if level.most is not None), default=sys.maxsize)
        """Items that an answer of any level may have."""
        self.instant = instant
        self.lost = lost
        self.level_names = [*(level.name for level in self.levels), *([instant.name] if instant else [])]
        """All levels, best first."""
        self.queues: list[list[Job]] = [[] for _ in range(num_classes)]
        self.rows = [0] * num_classes
        self._leads_s = [0.0] * num_classes
        """The longest that a request of each queue must begin before it is due."""
        self.flows = [Flow(window_s) for _ in range(num_classes)]
        self.writing = Smooth()
        """Seconds from the end of a batch until its last answer is written."""
        self.room = self.cheapest.profile.max_batch
        """Rows that batches have at most, as things are."""
        self.shared = False
        """Several want to be in each batch, and two batches of `room` rows fit into a request's patience."""
        self.alone = True
        """What waits is one tenant's, of one class, and nothing is expected of the classes above."""
        self.refused_s = -math.inf
        """When admission last found no time for a request."""
        self.measured_s = 0.0
        self.sends_ahead = len(self.levels) == 1
        """A batch may be sent before the worker is idle. Where there are cheaper levels, what waits longer is answered worse."""

    def due_s(self, deadline_s: float, now: float) -> float:
        """Return when the batch of a request that comes now has to have ended."""
        return deadline_s - self.writing.bound_s - SPARE_SHARE * (deadline_s - now)

    def spend_spare(self, job: Job) -> None:
        """Give a request what was kept of its budget: its run was lost. Not one that is to have an instant answer from it."""
        if job.must_run or (self.instant is not None and job.instant):
            return
        lead_s = job.due_s - job.last_start_s
        job.due_s = max(job.due_s, job.deadline_s - self.writing.bound_s)
        job.last_start_s = job.due_s - lead_s

    def spend_every_spare(self) -> None:
        """Give it to all that wait: what was lost is run again before them."""
        for queue in self.queues:
            for job in queue:
                self.spend_spare(job)
            queue.sort(key=_due)

    def last_entry_s(self, deadline_s: float, now: float, accepts: "Accepts") -> float:
        """Return when a request must be in the queue, at the latest, for the cheapest level that may answer it."""
        return self.due_s(deadline_s, now) - self.levels[accepts.floor].profile.bound_s(1)

    def accepts(self, stated: int | None = None, k: int | None = None) -> "Accepts":
        """Return what may answer a request that states this level as the least, None for any, and wants `k`.

        Every level up to the cheapest can give so many; the best one is taken for one that can whatever it gives.
        """
        last = len(self.levels) - 1
        instant = self.instant is not None and (stated is None or stated > last)
        floor = last if stated is None else min(stated, last)
        if k is not None and k > self._surely:
            small = (i for i in range(1, floor + 1) if k > (self.levels[i].most or k))
            floor = next(small, floor + 1) - 1
        return Accepts(floor, instant)

    @property
    def length(self) -> int:
        """Requests in the queue."""
        return sum(map(len, self.queues))

    def profile_of(self, job: Job) -> Profile:
        """Return the profile of the cheapest level that a worker may answer a request at."""
        return self.levels[job.floor].profile

    def observe(self, number: int, rows: int, seconds: float) -> None:
        """Take in what a batch took at a level. Those below have less to do, and none of them takes longer.

        One that was measured while the machine was slow would look dear for good: it is not chosen, and so not
        measured again, and the one below it is given in its place.
        """
        profile = self.levels[number].profile
        profile.observe(rows, seconds)
        for level in self.levels[number + 1 :]:
            if level.profile.bound_s(rows) > profile.bound_s(rows):
                level.profile.no_slower_than(profile)

    def add(self, job: Job) -> None:
        rank = job.rank
        queue, lead_s = self.queues[rank], job.due_s - job.last_start_s
        self.rows[rank] += job.rows
        self._leads_s[rank] = max(self._leads_s[rank], lead_s) if queue else lead_s
        if queue and job.due_s < queue[-1].due_s:
            bisect.insort(queue, job, key=_due)
        else:
            queue.append(job)

    def in_order(self, order: Iterable[int]) -> list[Job]:
        """Return what waits, class by class, the earliest due first in each."""
        return [job for c in order for job in self.queues[c]]

    def remove(self, jobs: Collection[Job]) -> list[Job]:
        """Take jobs out of the queue and return those that were in it."""
        gone = set(jobs)
        if (front := self._at_front(gone)) is not None:
            return front
        found: list[Job] = []
        for rank in {job.rank for job in gone}:
            kept: list[Job] = []
            for job in self.queues[rank]:
                (found if job in gone else kept).append(job)
            self.queues[rank] = kept
        for job in found:
            self.rows[job.rank] -= job.rows
        return found

    def overdue(self, now: float) -> list[Job]:
        """Return what cannot be in time any more; looks no further into a queue than such may stand."""
        found = []
        for queue, lead_s in zip(self.queues, self._leads_s, strict=True):
            for job in queue:
                if job.due_s - lead_s >= now:
                    break
                if job.last_start_s < now:
                    found.append(job)
        return found

    def _at_front(self, gone: set[Job]) -> list[Job] | None:
        """Take jobs out that are the first of one queue, as most batches are; None where they are not."""
        rank = next(iter(gone)).rank if gone else 0
        queue = self.queues[rank]
        front = queue[: len(gone)]
        if len(front) < len(gone) or not gone.issuperset(front):
            return None
        del queue[: len(front)]
        self.rows[rank] -= rows_of(front)
        return front

    def rows_before(self, rank: int, due_s: float, order: Sequence[int]) -> int:
        """Return the rows that run before a request of this class with this due time."""
        ahead = sum(self.rows[c] for c in order[: order.index(rank)])
        queue = self.queues[rank]
        if not queue or queue[-1].due_s <= due_s:
            return ahead + self.rows[rank]
        end = bisect.bisect_right(queue, due_s, key=_due)
        return ahead + rows_of(queue[:end])


def latest_of(queue: Sequence[Job], tenant: str, before_s: float) -> Job | None:
    """Return the tenant's request that is due last, and no later than `before_s`; None when there is none."""
    for job in reversed(queue):
        if job.due_s <= before_s and job.caller.tenant == tenant and not job.must_run:
            return job
    return None


def _due(job: Job) -> float:
    return job.due_s
