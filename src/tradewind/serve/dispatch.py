"""The loop between admission, queue and workers: applies what the pure policies decide."""

import asyncio
import bisect
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tradewind.serve import admission, batching, wire
from tradewind.serve.errors import RequestError
from tradewind.serve.execution import Pool, Worker, WorkerLost
from tradewind.serve.metrics import Metrics
from tradewind.serve.profile import Profile

MAX_TRIES = 3
"""Times one request may be in a batch whose worker dies, before it is taken for the cause."""
HANG_S, HANG_BATCHES = 10.0, 20.0
"""A batch that takes this many seconds and this many times its bound is hung: its worker is killed."""
PROBE_AFTER_S = 1.0


class Tensor(NamedTuple):
    """One request's part of a batch tensor: joined with others along its first dimension."""

    dtype: str
    shape: tuple[int, ...]
    data: wire.Buffer


class Result(NamedTuple):
    """One request's rows of the outputs, and where its time went."""

    tensors: dict[str, Tensor]
    queue_s: float
    compute_s: float
    batch_rows: int


class Job:
    """One request in the queue."""

    __slots__ = ("deadline_s", "future", "key", "must_run", "queued_s", "rows", "tensors", "tries")

    def __init__(
        self, key: object, rows: int, deadline_s: float, now: float, tensors: Mapping[str, Tensor]
    ) -> None:
        self.key = key
        self.rows = rows
        self.deadline_s = deadline_s
        self.queued_s = now
        self.tensors = tensors
        self.must_run = False
        self.tries = 0
        self.future: asyncio.Future[Result]


class Lane:
    """The queue of one program and the profile that rules it."""

    def __init__(self, program: str, profile: Profile) -> None:
        self.program = program
        self.profile = profile
        self.queue: list[Job] = []
        self.measured_s = 0.0

    def add(self, job: Job) -> None:
        bisect.insort(self.queue, job, key=_deadline)

    def rows_before(self, deadline_s: float) -> int:
        return sum(
            job.rows for job in self.queue[: bisect.bisect_right(self.queue, deadline_s, key=_deadline)]
        )


def _deadline(job: Job) -> float:
    return job.deadline_s


class Dispatcher:
    """Takes requests, refuses those that cannot be in time, and keeps workers busy with the rest."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.in_flight = 0
        self._clock = clock
        self._metrics = metrics
        self._lanes: dict[str, Lane] = {}
        self._free_at_s: dict[Worker, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.pool: Pool

    def add_program(self, program: str, profile: Profile) -> None:
        self._lanes[program] = Lane(program, profile)

    @property
    def programs(self) -> list[str]:
        return list(self._lanes)

    def profile(self, program: str) -> Profile:
        return self._lanes[program].profile

    async def submit(
        self, program: str, tensors: Mapping[str, Tensor], *, rows: int, key: object, budget_s: float
    ) -> Result:
        """Run one request inside its budget.

        Raises RequestError: 429 when it cannot be in time, 503 when no worker came back in time, 422 when the
        model itself failed on it.
        """
        now = self._clock()
        job = Job(key, rows, now + budget_s, now, tensors)
        lane = self._lanes[program]
        self._admit(lane, job, now)
        job.future = asyncio.get_running_loop().create_future()
        lane.add(job)
        self.in_flight += 1
        try:
            self.pump()
            return await job.future
        finally:
            self.in_flight -= 1
            if not job.future.done() or job.future.cancelled():
                self._forget(lane, job)

    def pump(self) -> None:
        """Hand batches to idle workers until there are none, or nothing is queued."""
        now = self._clock()
        while lane := self._most_urgent():
            worker = self.pool.take()
            if worker is None:
                self._shed_overdue(now)
                break
            batch = self._next_batch(lane, now)
            if not batch:
                self.pool.give_back(worker)
                continue
            self._free_at_s[worker] = now + lane.profile.latency_s(sum(job.rows for job in batch))
            task = asyncio.ensure_future(self._run(lane, worker, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._set_timer()

    async def drained(self) -> None:
        """Wait until no batch is running."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def _admit(self, lane: Lane, job: Job, now: float) -> None:
        idle = len(self._free_at_s) < self.pool.num_workers
        quiet = idle and not lane.queue and now - lane.measured_s > PROBE_AFTER_S
        ahead = sum(other.rows_before(job.deadline_s) for other in self._lanes.values())
        load = admission.Load(
            free_at_s=now if idle else min(self._free_at_s.values()),
            rows_ahead=ahead,
            num_workers=self.pool.num_workers,
            probe=quiet,
        )
        verdict = admission.decide(now, job.deadline_s, job.rows, load, lane.profile)
        if not verdict.admit:
            self._metrics.refused.labels(lane.program, "admission").inc()
            raise RequestError(
                429,
                f"cannot answer inside {(job.deadline_s - now) * 1e3:.0f} ms; predicted {(verdict.finish_s - now) * 1e3:.0f} ms",
                retry_after_s=verdict.retry_after_s,
            )
        job.must_run = verdict.finish_s > job.deadline_s

    def _most_urgent(self) -> Lane | None:
        waiting = [lane for lane in self._lanes.values() if lane.queue]
        return min(waiting, key=lambda lane: lane.queue[0].deadline_s) if waiting else None

    def _next_batch(self, lane: Lane, now: float) -> list[Job]:
        choice = batching.choose(lane.queue, now, lane.profile, lane.profile.max_batch)
        batch = [lane.queue[i] for i in choice.run]
        for i in choice.late:
            self._shed(lane, lane.queue[i])
        gone = {*choice.run, *choice.late}
        lane.queue = [job for i, job in enumerate(lane.queue) if i not in gone]
        return batch

    def _shed(self, lane: Lane, job: Job) -> None:
        self._metrics.refused.labels(lane.program, "late").inc()
        if job.future.done():
            return
        if self.pool.size == 0:
            job.future.set_exception(RequestError(503, "no model worker came back in time", 1.0))
        else:
            job.future.set_exception(RequestError(429, "the deadline passed while it was queued", 0.1))

    def _shed_overdue(self, now: float) -> None:
        for lane in self._lanes.values():
            while lane.queue and lane.queue[0].deadline_s <= now:
                self._shed(lane, lane.queue.pop(0))

    def _forget(self, lane: Lane, job: Job) -> None:
        if job in lane.queue:
            lane.queue.remove(job)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lane = self._most_urgent()
        if lane is not None:
            delay = max(lane.queue[0].deadline_s - self._clock(), 0.0) + 1e-3
            self._timer = asyncio.get_running_loop().call_later(delay, self.pump)

    async def _run(self, lane: Lane, worker: Worker, batch: list[Job]) -> None:
        start = self._clock()
        rows = sum(job.rows for job in batch)
        hung = asyncio.get_running_loop().call_later(
            HANG_S + HANG_BATCHES * lane.profile.bound_s(rows), worker.kill
        )
        try:
            reply, body = await worker.call(*_collate(lane.program, batch))
        except WorkerLost:
            self._retry(lane, batch)
            self._released(worker)
            return
        finally:
            hung.cancel()
        seconds = self._clock() - start
        if reply.error is None:
            lane.profile.observe(rows, seconds)
            lane.measured_s = start + seconds
        else:
            self._fail(lane, batch, reply.error)
        self._released(worker)  # the worker runs its next batch while this one's answers are written
        if reply.error is None:
            self._settle(lane, batch, reply, body, (start, seconds, rows))

    def _released(self, worker: Worker) -> None:
        self._free_at_s.pop(worker, None)
        self.pool.give_back(worker)
        self.pump()

    def _settle(
        self, lane: Lane, batch: list[Job], reply: wire.Reply, body: bytes, timing: tuple[float, float, int]
    ) -> None:
        start, seconds, rows = timing
        self._metrics.observe_batch(lane.program, rows, seconds)
        for job, tensors in zip(batch, _split(batch, reply, body), strict=True):
            if not job.future.done():
                job.future.set_result(Result(tensors, start - job.queued_s, seconds, rows))

    def _fail(self, lane: Lane, batch: list[Job], error: str) -> None:
        """One bad request must not fail its neighbours: each of a failed batch is tried once by itself."""
        if len(batch) == 1:
            if not batch[0].future.done():
                batch[0].future.set_exception(RequestError(422, f"the model failed on this input: {error}"))
            return
        for job in batch:
            job.key = object()
            lane.add(job)

    def _retry(self, lane: Lane, batch: list[Job]) -> None:
        self._metrics.retried.labels(lane.program).inc(len(batch))
        for job in batch:
            job.tries += 1
            if job.future.done():
                continue
            if job.tries >= MAX_TRIES:
                error = RequestError(422, f"{MAX_TRIES} model workers died while running this request")
                job.future.set_exception(error)
            else:
                if job.tries > 1:
                    job.key = object()  # alone from now on, so that it takes no others with it
                lane.add(job)


def _collate(program: str, batch: list[Job]) -> tuple[wire.Call, list[wire.Buffer]]:
    specs: list[wire.TensorSpec] = []
    buffers: list[wire.Buffer] = []
    for name, first in batch[0].tensors.items():
        parts = [job.tensors[name] for job in batch]
        shape = (sum(p.shape[0] for p in parts), *first.shape[1:]) if len(batch) > 1 else first.shape
        specs.append(wire.TensorSpec(name, first.dtype, shape))
        buffers.extend(p.data for p in parts)
    return wire.Call(program, tuple(specs)), buffers


def _split(batch: list[Job], reply: wire.Reply, body: bytes) -> list[dict[str, Tensor]]:
    """Cut each output along its first dimension, as many rows as each request sent."""
    results: list[dict[str, Tensor]] = [{} for _ in batch]
    for spec, view in zip(reply.tensors, wire.views(reply.tensors, body), strict=True):
        if len(batch) == 1:
            results[0][spec.name] = Tensor(spec.dtype, spec.shape, view)
            continue
        per_row, start = spec.nbytes // spec.shape[0], 0
        for job, result in zip(batch, results, strict=True):
            end = start + job.rows * per_row
            result[spec.name] = Tensor(spec.dtype, (job.rows, *spec.shape[1:]), view[start:end])
            start = end
    return results
