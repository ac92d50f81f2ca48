"""Everything that waits, and the questions asked of it: may this one come in, what runs next, who is too late."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from tradewind.serve import batching, levels
from tradewind.serve.admission import Load, Verdict, decide, surely_in_time
from tradewind.serve.caller import Caller
from tradewind.serve.classes import Guarantee, precedence
from tradewind.serve.fairness import Standing, Weight
from tradewind.serve.jobs import Job
from tradewind.serve.lanes import Lane, latest_of
from tradewind.serve.profile import Profile

BANK = 2.0
"""SLOs of model time that a tenant may be behind the one that had most, and still catch up."""

HARDLY_ANY = 0.01
"""Rows that are expected of a class inside one SLO: fewer, and nobody is held back for it."""


def _alike(tenant: str) -> float:
    return 1.0


class Terms(NamedTuple):
    """What an endpoint promises to whom: a share of the model's time for each class, a weight for each tenant."""

    shares: tuple[float, ...] = (1.0,)
    slo_s: float = 0.05
    weight: Weight = _alike


class Workers(NamedTuple):
    """What the workers are at."""

    free_at_s: float
    """When the first is free; now, when one is."""
    idle: bool
    running: Sequence[Sequence[int]]
    """Rows of each class in every batch that is under way."""
    num_workers: int

    def rows_running(self, classes: Sequence[int]) -> int:
        """Return how many rows of these classes there are in the batch that has most of them."""
        return max((sum([rows[c] for c in classes]) for rows in self.running if rows), default=0)


class Batch(NamedTuple):
    """What to run next, at which level; and what to give up."""

    level: int
    run: list[Job]
    late: list[Job]


class Queues:
    """The lanes of one endpoint, and what its classes and tenants have had."""

    def __init__(self, terms: Terms, now: float) -> None:
        self.lanes: dict[str, Lane] = {}
        self.ahead_s = 0.0
        """How long before a worker may be idle its next batch is sent to it."""
        self._terms = terms
        self._guarantee = Guarantee(terms.shares, terms.slo_s)
        self._credits = self._guarantee.opening(now)
        self._order = precedence(self._credits)
        self._ticked_s = now
        self._stands_until_s = -math.inf
        """Until when time alone does not change the order."""
        self._standing = [Standing(BANK * terms.slo_s, terms.weight) for _ in terms.shares]

    @property
    def length(self) -> int:
        """Requests that wait."""
        return sum(lane.length for lane in self.lanes.values())

    @property
    def next_due_s(self) -> float:
        """When the first request must have begun."""
        heads = (queue[0] for lane in self.lanes.values() for queue in lane.queues if queue)
        return min((job.last_start_s for job in heads), default=math.inf)

    def tick(self, now: float, num_workers: int) -> None:
        """Let the classes earn their shares, and put them in order, where that may change it."""
        self._ticked_s = now
        if num_workers != self._guarantee.num_workers:
            self._guarantee = self._guarantee._replace(num_workers=num_workers)
            self._stands_until_s = -math.inf
        if now >= self._stands_until_s:
            self._earn()

    def add(self, lane: Lane, job: Job) -> None:
        lane.add(job)
        lane.flows[job.rank].count(job.rows)
        self._standing[job.rank].add(job.caller.tenant, job.cost_s)

    def remove(self, lane: Lane, jobs: Collection[Job], *, to_run: bool = False) -> list[Job]:
        """Take those of `jobs` out that wait, and return them."""
        found = lane.remove(jobs)
        for (tenant, rank), own in by_caller(found).items():
            back_s = 0.0 if to_run else sum([job.cost_s for job in own])
            self._standing[rank].remove(tenant, len(own), back_s)
        return found

    def surely_in_time(
        self,
        lane: Lane,
        rank: int,
        due_s: float,
        profile: Profile,
        free_at_s: float,
        num_workers: int,
        now: float,
    ) -> bool:
        """Whether `verdict` and `foresee` are sure to say yes; False where it takes those to know."""
        if len(self.lanes) > 1 and self.length > lane.length:
            return False
        crowded = self._order[0] != rank and self._asked_before(rank)
        return surely_in_time(
            now, due_s, sum(lane.rows), free_at_s, profile, num_workers, lane.room, crowded=crowded
        )

    def verdict(self, lane: Lane, job: Job, workers: Workers, now: float) -> Verdict:
        """Say whether a request may come in as things are."""
        profile = lane.profile_of(job)
        return self._verdict(lane, job.rank, job.due_s, job.rows, profile, workers, now)

    def foresee(
        self, lane: Lane, caller: Caller, due_s: float, rows: int, workers: Workers, now: float
    ) -> Verdict:
        """Say the same of one that has not been read, and that is taken to accept any level."""
        profile = lane.cheapest.profile
        verdict = self._verdict(lane, caller.priority, due_s, rows, profile, workers, now)
        if verdict.admit:
            return verdict
        other = self._standing[caller.priority].gives_way(caller.tenant, cost_s(lane, rows))
        return verdict._replace(admit=other is not None)

    def make_room(self, lane: Lane, job: Job, workers: Workers, now: float) -> list[Job]:
        """Take out requests of tenants who have more waiting, as many as let this one in; none if that does not."""
        queue, victims, freed = list(lane.queues[job.rank]), [], 0
        standing, given = self._standing[job.rank], dict[str, float]()
        while tenant := standing.gives_way(job.caller.tenant, job.cost_s, given):
            victim = latest_of(queue, tenant, job.due_s)
            if victim is None:
                return []
            queue.remove(victim)
            victims.append(victim)
            given[tenant] = given.get(tenant, 0.0) + victim.cost_s
            freed += victim.rows
            profile = lane.profile_of(job)
            if self._verdict(lane, job.rank, job.due_s, job.rows, profile, workers, now, freed).admit:
                return self.remove(lane, victims)
        return []

    def most_urgent(self) -> Lane | None:
        """Return the lane with the earliest deadline of the first class that waits; None when nothing does."""
        if len(self.lanes) == 1:
            (lane,) = self.lanes.values()
            return lane if lane.length else None
        for c in self._order:
            waiting = [lane for lane in self.lanes.values() if lane.queues[c]]
            if waiting:
                return min(waiting, key=lambda lane: lane.queues[c][0].due_s)
        return None

    def is_worth_sending(self, lane: Lane) -> bool:
        """Whether to send a batch of what waits ahead: it would hardly do more a second if it were larger."""
        return lane.sends_ahead and sum(lane.rows) >= lane.cheapest.profile.worth_rows

    def take_batch(self, lane: Lane, num_workers: int, now: float, start_s: float) -> Batch:
        """Take the next batch out, to begin at `start_s`, and what can no longer be in time.

        It is of the level that clears the queue.
        """
        for flow in lane.flows:
            flow.settle(now)
        queue = lane.in_order(self._order)
        level = self._level(lane, queue, num_workers, start_s)
        riders = queue if level == 0 else [job for job in queue if job.floor >= level]
        profile = lane.levels[level].profile
        room = self._room(lane, profile, queue)
        # Where there are cheaper levels it is they that do more a second, and nobody is given up for a larger batch.
        saturated = len(lane.levels) == 1 and lane.alone and now - lane.refused_s < self._terms.slo_s
        choice = batching.choose(riders, start_s, profile, room, saturated=saturated)
        batch = Batch(level, [riders[i] for i in choice.run], [riders[i] for i in choice.late])
        self.remove(lane, batch.run, to_run=True)
        if batch.late:
            self.remove(lane, batch.late)
        return batch

    def charge(self, rows: Sequence[int], seconds: float) -> None:
        """Note what the classes use, by the rows of each."""
        self._earn()
        used_s = [seconds * of_class / sum(rows) for of_class in rows]
        self._credits = self._guarantee.charged(self._credits, used_s)
        self._stands_until_s = -math.inf

    def _earn(self) -> None:
        self._credits = self._guarantee.earned(self._credits, self._ticked_s)
        self._order = precedence(self._credits)
        self._stands_until_s = self._guarantee.stands_until_s(self._credits)

    def take_overdue(self, now: float) -> list[tuple[Lane, Job]]:
        """Take out what cannot be in time any more, even if a worker were free."""
        found = []
        for lane in self.lanes.values():
            overdue = lane.overdue(now)
            found += [(lane, job) for job in self.remove(lane, overdue)] if overdue else []
        return found

    def spend_every_spare(self) -> None:
        """A worker's time was lost: give all that wait what was kept of their budgets for such."""
        for lane in self.lanes.values():
            lane.spend_every_spare()

    def leaves_room(self, lane: Lane, busy_s: float, num_workers: int, now: float) -> bool:
        """Whether an idle worker may do something else for so long, and what comes meanwhile is still in time."""
        for flow in lane.flows:
            flow.settle(now)
        return levels.leaves_room(busy_s, lane.cheapest.profile, self._pressure(lane, num_workers))

    def _level(self, lane: Lane, queue: Sequence[Job], num_workers: int, now: float) -> int:
        if len(lane.levels) == 1:
            return 0
        fit = [job for job in queue if job.must_run or job.last_start_s >= now] or queue
        pressure = self._pressure(lane, num_workers)
        profiles = [level.profile for level in lane.levels]
        return min(levels.pick(fit, now, profiles, pressure), queue[0].floor)

    def _room(self, lane: Lane, profile: Profile, queue: Sequence[Job]) -> int:
        """Return how many rows a batch may have: fewer where several classes or tenants want to be in it."""
        caller, cheapest = queue[0].caller, lane.cheapest.profile
        above = lane.flows[: caller.priority]
        lane.alone = not [job for job in queue if job.caller != caller] and not any(
            flow.per_s * self._terms.slo_s > HARDLY_ANY for flow in above
        )
        if lane.alone:
            lane.room, lane.shared = cheapest.max_batch, False
            return profile.max_batch
        ahead = lane.sends_ahead
        patience_s = self._patience_s(lane) - (self.ahead_s if ahead else 0.0)
        lane.room = batching.shared_rows(cheapest, patience_s, ahead=ahead)
        lane.shared = batching.two_s(cheapest, lane.room, ahead=ahead) <= patience_s
        return lane.room if profile is cheapest else batching.shared_rows(profile, patience_s, ahead=ahead)

    def _pressure(self, lane: Lane, num_workers: int) -> levels.Pressure:
        rows_per_s = sum(flow.per_s for flow in lane.flows)
        return levels.Pressure(rows_per_s, self._patience_s(lane), num_workers)

    def _patience_s(self, lane: Lane) -> float:
        """Return how long a request that comes now has until its batch must have ended."""
        return lane.due_s(self._terms.slo_s, 0.0)

    def _verdict(
        self,
        lane: Lane,
        rank: int,
        due_s: float,
        rows: int,
        profile: Profile,
        workers: Workers,
        now: float,
        freed: int = 0,
    ) -> Verdict:
        """Predict from what runs before, less the rows `freed`."""
        others = [other for other in self.lanes.values() if other is not lane and other.length]
        upto = self._order[: self._order.index(rank) + 1]
        load = Load(
            free_at_s=workers.free_at_s,
            rows_ahead=lane.rows_before(rank, due_s, self._order) - freed,
            seconds_ahead=sum(cost_s(o, o.rows_before(rank, due_s, self._order)) for o in others),
            crowding=self._crowding(rank) / workers.num_workers,
            rows_running=lane.room if lane.shared else workers.rows_running(upto),
            room=lane.room,
            num_workers=workers.num_workers,
            idle=workers.idle and not lane.length,
            unmeasured_s=now - lane.measured_s,
        )
        verdict = decide(now, due_s, rows, load, profile)
        if not verdict.admit:
            lane.refused_s = now
        return verdict

    def _asked_before(self, rank: int) -> bool:
        """Whether the classes before this one have asked for anything lately."""
        for c in self._order:
            if c == rank:
                return False
            for lane in self.lanes.values():
                if lane.flows[c].per_s:
                    return True
        return False

    def _crowding(self, rank: int) -> float:
        """Return the seconds of model time a second that the classes before this one have asked for lately."""
        before = self._order[: self._order.index(rank)]
        return sum(
            lane.flows[c].per_s * cost_s(lane, 1)
            for lane in (self.lanes.values() if before else ())
            for c in before
        )


def by_caller(jobs: Iterable[Job]) -> dict[Caller, list[Job]]:
    """Return the requests of each tenant in each class."""
    found: dict[Caller, list[Job]] = {}
    for job in jobs:
        if job.caller in found:
            found[job.caller].append(job)
        else:
            found[job.caller] = [job]
    return found


def cost_s(lane: Lane, rows: int) -> float:
    """Return the model time of so many rows in full batches at the cheapest level."""
    return rows * lane.cheapest.profile.row_s
