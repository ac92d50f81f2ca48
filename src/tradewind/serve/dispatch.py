"""The loop between admission, queue and workers: applies what the pure policies decide."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from tradewind.serve import batching, wire
from tradewind.serve.admission import Load, Verdict, decide
from tradewind.serve.errors import RequestError
from tradewind.serve.execution import Pool, Worker, WorkerLost
from tradewind.serve.jobs import Job, Lane, Prepared, Result, collate, misfit, split
from tradewind.serve.metrics import Metrics
from tradewind.serve.profile import Profile

MAX_TRIES = 3
"""Times one request may be in a batch whose worker dies, before it is taken for the cause."""
HANG_S, HANG_BATCHES = 5.0, 20.0
"""A batch that takes this many seconds and this many times its bound is hung: its worker is killed."""


class Busy(NamedTuple):
    """What a worker is at: until when, as predicted, and how many rows of how many requests."""

    until_s: float
    rows: int
    jobs: int


class Dispatcher:
    """Takes requests, refuses those that cannot be in time, and keeps workers busy with the rest."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool: Pool
        self._clock = clock
        self._metrics = metrics
        self._lanes: dict[str, Lane] = {}
        self._busy: dict[Worker, Busy] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = math.inf

    def add_program(self, program: str, profile: Profile) -> None:
        self._lanes[program] = Lane(program, profile)

    @property
    def profiles(self) -> dict[str, Profile]:
        return {program: lane.profile for program, lane in self._lanes.items()}

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        queued = sum(len(lane.queue) for lane in self._lanes.values())
        return queued + sum(busy.jobs for busy in self._busy.values())

    def predict(self, program: str, deadline_s: float, rows: int = 1) -> Verdict:
        """Say whether a request that came now would be admitted."""
        return self._predict(self._lanes[program], deadline_s, rows, self._clock())

    def submit(self, program: str, prepared: Prepared, deadline_s: float) -> Job:
        """Queue one request. Its future gets a Result, or a RequestError.

        Raises RequestError (429) when it cannot be in time. Later errors: 429 when it turned out that it could
        not, 503 when workers died and none came back in time, 422 when the model itself failed on it.
        """
        now = self._clock()
        lane = self._lanes[program]
        verdict = self._predict(lane, deadline_s, prepared.rows, now)
        if not verdict.admit:
            self._metrics.observe_refusal(program, "admission")
            left_ms, finish_ms = max(deadline_s - now, 0.0) * 1e3, (verdict.finish_s - now) * 1e3
            message = f"cannot answer in the {left_ms:.0f} ms left; predicted {finish_ms:.0f} ms"
            raise RequestError(429, message, verdict.retry_after_s)
        job = Job(prepared, deadline_s, now)
        job.must_run = verdict.finish_s > deadline_s
        lane.add(job)
        self._pump(now)
        return job

    def cancel(self, program: str, job: Job) -> None:
        """Give up a request whose client has left."""
        job.future.cancel()
        self._lanes[program].remove(job)

    def pump(self) -> None:
        """Hand batches to idle workers until there are none, or nothing is queued."""
        self._pump(self._clock())

    def _pump(self, now: float) -> None:
        while lane := self._most_urgent():
            worker = self.pool.take()
            if worker is None:
                self._shed_overdue(now)
                break
            batch = self._next_batch(lane, now)
            if batch:
                self._start(lane, worker, batch, now)
            else:
                self.pool.give_back(worker)
        self._set_timer()

    def _predict(self, lane: Lane, deadline_s: float, rows: int, now: float) -> Verdict:
        idle = len(self._busy) < self.pool.num_workers
        load = Load(
            free_at_s=now if idle else min(busy.until_s for busy in self._busy.values()),
            rows_running=max((busy.rows for busy in self._busy.values()), default=0),
            rows_ahead=sum(other.rows_before(deadline_s) for other in self._lanes.values()),
            num_workers=self.pool.num_workers,
            idle=idle and not lane.queue,
            unmeasured_s=now - lane.measured_s,
        )
        return decide(now, deadline_s, rows, load, lane.profile)

    def _most_urgent(self) -> Lane | None:
        waiting = [lane for lane in self._lanes.values() if lane.queue]
        return min(waiting, key=lambda lane: lane.queue[0].deadline_s) if waiting else None

    def _next_batch(self, lane: Lane, now: float) -> list[Job]:
        choice = batching.choose(lane.queue, now, lane.profile, lane.profile.max_batch)
        taken = lane.take([*choice.late, *choice.run])
        for job in taken[: len(choice.late)]:
            self._shed(lane, job)
        return taken[len(choice.late) :]

    def _shed(self, lane: Lane, job: Job) -> None:
        self._metrics.observe_refusal(lane.program, "late")
        if job.tries or self.pool.size == 0:
            job.fail(RequestError(503, "model workers died, and none came back in time", 1.0))
        else:
            job.fail(RequestError(429, "the deadline passed while it was queued", 0.1))

    def _shed_overdue(self, now: float) -> None:
        for lane in self._lanes.values():
            overdue = [i for i, job in enumerate(lane.queue) if job.deadline_s <= now]
            for job in lane.take(overdue) if overdue else ():
                self._shed(lane, job)

    def _set_timer(self) -> None:
        """Come back when the earliest deadline passes: a late request is not to wait for a worker to hear so."""
        lane = self._most_urgent()
        if lane is None or lane.queue[0].deadline_s >= self._timer_due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_s = lane.queue[0].deadline_s
        delay_s = max(self._timer_due_s - self._clock(), 0.0) + 1e-3
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_due_s = None, math.inf
        self.pump()

    def _start(self, lane: Lane, worker: Worker, batch: list[Job], now: float) -> None:
        rows = sum(job.rows for job in batch)
        self._busy[worker] = Busy(now + lane.profile.latency_s(rows), rows, len(batch))
        task = asyncio.ensure_future(self._run(lane, worker, batch, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: Lane, worker: Worker, batch: list[Job], start: float) -> None:
        rows = sum(job.rows for job in batch)
        hang_s = HANG_S + HANG_BATCHES * lane.profile.bound_s(rows)
        hung = asyncio.get_running_loop().call_later(hang_s, worker.kill)
        try:
            reply, body = await worker.call(*collate(lane.program, batch))
        except WorkerLost:
            self._retry(lane, batch)
            self._released(worker)
            return
        finally:
            hung.cancel()
        seconds = self._clock() - start
        error = reply.error or misfit(batch, reply)
        if error is not None:
            self._fail(lane, batch, error)
            self._released(worker)
            return
        lane.profile.observe(rows, seconds)
        lane.measured_s = start + seconds
        self._released(worker)  # the worker runs its next batch while this one's answers are written
        self._settle(lane, batch, reply, body, start, seconds)

    def _released(self, worker: Worker) -> None:
        del self._busy[worker]
        self.pool.give_back(worker)
        self.pump()

    def _settle(
        self, lane: Lane, batch: list[Job], reply: wire.Reply, body: bytes, start: float, seconds: float
    ) -> None:
        rows = sum(job.rows for job in batch)
        self._metrics.observe_batch(lane.program, rows, seconds)
        for job, tensors in zip(batch, split(batch, reply, body), strict=True):
            queue_s = start - job.queued_s
            self._metrics.observe_queue(lane.program, queue_s)
            if not job.future.done():
                job.future.set_result(Result(tensors, queue_s, seconds, rows))

    def _fail(self, lane: Lane, batch: list[Job], error: str) -> None:
        """One bad request must not fail its neighbours: each of a failed batch is tried once by itself."""
        if len(batch) == 1:
            batch[0].fail(RequestError(422, f"the model failed on this input: {error}"))
            return
        for job in batch:
            job.run_alone()
            self._requeue(lane, job)

    def _retry(self, lane: Lane, batch: list[Job]) -> None:
        self._metrics.retried.labels(lane.program).inc(len(batch))
        for job in batch:
            job.tries += 1
            if job.tries >= MAX_TRIES:
                job.fail(RequestError(422, f"{MAX_TRIES} model workers died while running this request"))
                continue
            if job.tries > 1:
                job.run_alone()  # so that it takes no others with it
            self._requeue(lane, job)

    def _requeue(self, lane: Lane, job: Job) -> None:
        if not job.future.done():
            lane.add(job)
