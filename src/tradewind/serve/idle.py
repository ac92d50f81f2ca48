"""What workers do while nothing waits: answers and searches made again, to measure what levels lose and plans recall."""

import math
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from tradewind.serve.audit import Audits, Sample
from tradewind.serve.busy import Sent
from tradewind.serve.execution import Pool, Worker, WorkerLost
from tradewind.serve.jobs import Job, Tensor, collate, split
from tradewind.serve.lanes import Lane
from tradewind.serve.metrics import Metrics
from tradewind.serve.queues import Queues
from tradewind.serve.recall import RecallAudits


class Lending(NamedTuple):
    """How a worker is had for something else than requests, and given back."""

    put_to_work: Callable[[Worker, Sent, float], Sent]
    release: Callable[[Worker, Sent, float], None]
    spawn: Callable[[Coroutine[Any, Any, None]], None]


class Idle:
    """Chooses what is made again, when there is time for it, and learns from what comes of it."""

    def __init__(
        self, queues: Queues, metrics: Metrics, clock: Callable[[], float], lending: Lending
    ) -> None:
        self._queues = queues
        self._metrics = metrics
        self._clock = clock
        self._lending = lending
        self._audits = Audits()
        self._recalls = RecallAudits(metrics)

    def offer(self, lane: Lane, level: str, job: Job, tensors: dict[str, Tensor], now: float) -> None:
        """Take note of a degraded answer, where it can be said what was lost."""
        if lane.lost is not None:
            self._audits.offer(Sample(lane, level, job.prepared, tensors), now)

    def note(self, worker: Worker, due: int, now: float) -> None:
        """Take note of how many searches wait at a worker to be done again."""
        self._recalls.note(worker, due, now)

    def begin(self, pool: Pool, now: float) -> None:
        """Nothing waits: begin what there is time for."""
        self._audit(pool, now)
        self._audit_recall(pool, now)

    def _audit(self, pool: Pool, now: float) -> None:
        """Make a degraded answer again at the full level."""
        sample = self._audits.due(now)
        if sample is None:
            return
        expected_s = sample.lane.levels[0].profile.bound_s(1)
        if not self._queues.leaves_room(sample.lane, expected_s, pool.num_workers, now):
            return
        worker = pool.take()
        if worker is not None:
            self._audits.begin(sample)
            sent = self._lending.put_to_work(worker, Sent(expected_s), now)
            self._lending.spawn(self._make_again(worker, sample, sent, now))

    async def _make_again(self, worker: Worker, sample: Sample, sent: Sent, start: float) -> None:
        level, job = sample.lane.levels[0], Job(sample.prepared, math.inf, start)
        try:
            reply, body = await worker.call(*collate(level.program, [job]))
        except WorkerLost:
            self._lending.release(worker, sent, self._clock())
            return
        seconds = self._clock() - start
        self._audits.spent(seconds)
        if reply.error is None and sample.lane.lost is not None:
            sample.lane.observe(0, 1, seconds)
            lost = sample.lane.lost(split([job], reply, body)[0], sample.tensors)
            self._metrics.observe_lost(sample.lane.name, sample.level, lost)
        self._lending.release(worker, sent, self._clock())

    def _audit_recall(self, pool: Pool, now: float) -> None:
        """Have a search done again exactly."""
        if not self._recalls.due(now):
            return
        lanes = self._queues.lanes.values()
        expected_s = self._recalls.expected_s(max(lane.levels[0].profile.bound_s(1) for lane in lanes))
        if not all(self._queues.leaves_room(lane, expected_s, pool.num_workers, now) for lane in lanes):
            return
        worker = pool.take()
        if worker is None:
            return
        if not self._recalls.waits_at(worker):
            pool.give_back(worker)
            return
        sent = self._lending.put_to_work(worker, Sent(expected_s), now)
        self._lending.spawn(self._search_again(worker, sent))

    async def _search_again(self, worker: Worker, sent: Sent) -> None:
        await self._recalls.run_one(worker, self._clock)
        self._lending.release(worker, sent, self._clock())
