"""The loop between admission, queue and workers: applies what the pure policies decide."""

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from tradewind.serve.admission import Verdict
from tradewind.serve.busy import Busy, Sent
from tradewind.serve.caller import ANYBODY, Caller
from tradewind.serve.errors import RequestError
from tradewind.serve.execution import Pool, Worker, WorkerLost
from tradewind.serve.idle import Idle, Lending
from tradewind.serve.jobs import Job, Prepared, Result, Tensor, collate, misfit, rows_of, split
from tradewind.serve.lanes import Accepts, Lane, Level
from tradewind.serve.metrics import Metrics
from tradewind.serve.overrun import TICK_S, Overrun
from tradewind.serve.profile import Profile
from tradewind.serve.queues import Queues, Terms, Workers, by_caller, cost_s
from tradewind.serve.smooth import Smooth
from tradewind.serve.wire import Nan, Reply

MAX_TRIES = 3
"""Times one request may be in a batch whose worker dies, before it is taken for the cause."""
HANG_S, HANG_BATCHES = 5.0, 20.0
"""A batch that takes this many seconds and this many times its bound is hung: its worker is killed."""


SURELY = Verdict(admit=True, finish_s=0.0, retry_after_s=0.0)


class Dispatcher:
    """Takes requests, refuses or degrades those that cannot be in time, and keeps workers busy with the rest."""

    def __init__(
        self,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        terms: Terms | None = None,
        workers_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool: Pool
        self._clock = clock
        self._workers_clock = workers_clock
        self._metrics = metrics
        self._terms = terms or Terms()
        self._queues = Queues(self._terms, clock())
        self._busy: dict[Worker, Busy] = {}
        self._hearing = Smooth()
        """Seconds from the end of a run until this process has heard of it."""
        lending = Lending(self._put_to_work, self._released, self._spawn)
        self._idle = Idle(self._queues, metrics, clock, lending)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = math.inf
        self._emptied: asyncio.Event | None = None
        self._pumping = False
        """The loop has been asked to pump."""

    def add_lane(self, lane: Lane) -> None:
        """Serve a model; its classes must be those of the terms."""
        self._queues.lanes[lane.name] = lane

    def add_program(self, program: str, profile: Profile) -> None:
        """Serve a program at one level."""
        level = Level(program, program, profile)
        self.add_lane(Lane(program, [level], len(self._terms.shares), self._terms.slo_s))

    @property
    def profiles(self) -> dict[str, Profile]:
        """The profile of every program of the workers that is used."""
        lanes = self._queues.lanes.values()
        return {level.program: level.profile for lane in lanes for level in lane.levels}

    @property
    def in_flight(self) -> int:
        """Requests that are queued or running."""
        return self._queues.length + sum(busy.jobs for busy in self._busy.values())

    def lane(self, program: str) -> Lane:
        """Return the lane of a model."""
        return self._queues.lanes[program]

    def predict(self, program: str, deadline_s: float, rows: int = 1, caller: Caller = ANYBODY) -> Verdict:
        """Say whether a request that came now would be admitted, if it accepts every level."""
        lane, now = self.lane(program), self._clock()
        due_s = lane.due_s(deadline_s, now)
        if self._surely_in_time(lane, caller.priority, due_s, lane.cheapest.profile, now):
            return SURELY
        return self._queues.foresee(lane, caller, due_s, rows, self._workers(now), now)

    def submit(
        self,
        program: str,
        prepared: Prepared,
        deadline_s: float,
        caller: Caller = ANYBODY,
        accepts: Accepts | None = None,
    ) -> Job:
        """Queue one request. Its future gets a Result, or a RequestError.

        `accepts` says which levels may answer it; all, without it. A request that cannot be in time is answered at
        once by the level that needs no worker, where there is one and it accepts it. Raises RequestError (429)
        otherwise. Later errors: 429 when it turned out that it could not be in time, 503 when workers died and none
        came back in time, 422 when the model itself failed on it.
        """
        now, lane = self._clock(), self.lane(program)
        job = self._job(lane, prepared, deadline_s, caller, accepts, now)
        if not self._surely_in_time(lane, job.rank, job.due_s, lane.profile_of(job), now):
            refused = self._admit(lane, job, now)
            if refused is not None:
                return self._turn_away(lane, job, refused, now)
        self._queues.add(lane, job)
        self._pump_soon()
        return job

    def decline(
        self,
        program: str,
        prepared: Prepared,
        deadline_s: float,
        caller: Caller,
        accepts: Accepts | None = None,
    ) -> Job:
        """Answer a request for which there is no time: without a worker, or with RequestError (429)."""
        now, lane = self._clock(), self.lane(program)
        job = self._job(lane, prepared, deadline_s, caller, accepts, now)
        if not self._answer_instantly(lane, job, now):
            self._metrics.observe_refusal(lane.name, "door", caller)
            raise RequestError(429, "the server is too busy to answer this request in time", 1.0)
        return job

    def cancel(self, program: str, job: Job) -> None:
        """Give up a request whose client has left."""
        job.future.cancel()
        self._queues.remove(self.lane(program), [job])
        self._tell_if_empty()

    def pump(self) -> None:
        """Hand batches to idle workers until there are none, or nothing is queued."""
        self._pump(self._clock())

    def _pump_soon(self) -> None:
        """Do so when those that come with this one are queued too: an idle worker is to have them all in one batch."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump_asked)

    def _pump_asked(self) -> None:
        self._pumping = False
        self.pump()

    async def emptied(self) -> None:
        """Return once nothing is queued or running."""
        self._emptied = asyncio.Event()
        self._tell_if_empty()
        await self._emptied.wait()

    def _job(
        self,
        lane: Lane,
        prepared: Prepared,
        deadline_s: float,
        caller: Caller,
        accepts: Accepts | None,
        now: float,
    ) -> Job:
        job = Job(prepared, deadline_s, now, caller)
        job.floor, job.instant = lane.accepts() if accepts is None else accepts
        job.due_s = lane.due_s(deadline_s, now)
        job.cost_s = cost_s(lane, job.rows)
        job.last_start_s = job.due_s - lane.profile_of(job).latency_s(job.rows)
        return job

    def _surely_in_time(self, lane: Lane, rank: int, due_s: float, profile: Profile, now: float) -> bool:
        num_workers, free_at_s = self.pool.num_workers, self._free_at_s(now)
        return self._queues.surely_in_time(lane, rank, due_s, profile, free_at_s, num_workers, now)

    def _admit(self, lane: Lane, job: Job, now: float) -> Verdict | None:
        """Let a request in, with others giving way where they have to; what speaks against it where it cannot."""
        workers = self._workers(now)
        verdict = self._queues.verdict(lane, job, workers, now)
        if now >= job.deadline_s:
            return verdict  # late whatever is measured by running it
        if not verdict.admit:
            victims = self._queues.make_room(lane, job, workers, now)
            if not victims:
                return verdict
            for victim in victims:
                self._give_up(lane, victim, "share", now)
        elif verdict.finish_s > job.due_s:
            job.must_run, job.last_start_s = True, job.deadline_s
        return None

    def _free_at_s(self, now: float) -> float:
        if len(self._busy) < self.pool.num_workers:
            return now
        return min([busy.until_s for busy in self._busy.values()])

    def _workers(self, now: float) -> Workers:
        return Workers(
            free_at_s=self._free_at_s(now),
            idle=len(self._busy) < self.pool.num_workers,
            running=[sent.rows for busy in self._busy.values() for sent in busy.sent],
            num_workers=self.pool.num_workers,
        )

    def _pump(self, now: float) -> None:
        self._queues.tick(now, self.pool.num_workers)
        while lane := self._queues.most_urgent():
            worker, start_s = self.pool.take(), now
            if worker is None and (worker := self._soon_idle(lane, now)) is not None:
                start_s = max(self._busy[worker].until_s, now)
            if worker is None:
                for late_lane, job in self._queues.take_overdue(now):
                    self._give_up(late_lane, job, "late", now)
                break
            batch = self._queues.take_batch(lane, self.pool.num_workers, now, start_s)
            for job in batch.late:
                self._give_up(lane, job, "late", now)
            if batch.run:
                self._start(lane, batch.level, worker, batch.run, now)
            elif worker not in self._busy:
                self.pool.give_back(worker)
        else:
            self._idle.begin(self.pool, now)
        self._set_timer()
        self._tell_if_empty()

    def _soon_idle(self, lane: Lane, now: float) -> Worker | None:
        """Return a busy worker that would be idle before this process had heard of it, if this lane has enough for it.

        Not one that should be idle already: it may be stopped, and the more important may come meanwhile.
        """
        if not self._busy or not self._queues.is_worth_sending(lane):
            return None
        worker, busy = min(self._busy.items(), key=lambda item: item[1].idle_s)
        return worker if self._ahead_s(busy) <= now <= busy.overdue_s else None

    def _ahead_s(self, busy: Busy) -> float:
        """Return when to send a worker its next batch, to have it there when it is idle."""
        return busy.idle_s - self._queues.ahead_s

    def _tell_if_empty(self) -> None:
        if self._emptied is not None and not self.in_flight:
            self._emptied.set()

    def _turn_away(self, lane: Lane, job: Job, verdict: Verdict, now: float) -> Job:
        if self._answer_instantly(lane, job, now):
            return job
        self._metrics.observe_refusal(lane.name, "admission", job.caller)
        left_ms, finish_ms = max(job.deadline_s - now, 0.0) * 1e3, (verdict.finish_s - now) * 1e3
        message = f"cannot answer in the {left_ms:.0f} ms left; predicted {finish_ms:.0f} ms"
        raise RequestError(429, message, verdict.retry_after_s)

    def _answer_instantly(self, lane: Lane, job: Job, now: float) -> bool:
        """Answer without a worker, where the request accepts that and it is not too late."""
        if lane.instant is None or not job.instant or now > job.deadline_s:
            return False
        if not job.future.done():
            tensors = lane.instant.answer(job.prepared)
            if tensors is None:
                return False
            job.future.set_result(Result(tensors, now - job.queued_s, 0.0, 0, lane.instant.name))
            self._metrics.observe_level(lane.name, lane.instant.name)
            self._idle.offer(lane, lane.instant.name, job, tensors, now)
        return True

    def _answer_meanwhile(self, lane: Lane, jobs: list[Job]) -> None:
        """Answer requests whose batch has not ended when it should have, from what is kept of their budget for that."""
        now = self._clock()
        for job in jobs:
            self._answer_instantly(lane, job, now)
        asyncio.get_running_loop().call_soon(self._written, lane, now)

    def _give_up(self, lane: Lane, job: Job, reason: str, now: float) -> None:
        """End a request that was queued: degraded where that goes, else with an error."""
        if self._answer_instantly(lane, job, now):
            return
        self._metrics.observe_refusal(lane.name, reason, job.caller)
        if job.tries or self.pool.size == 0:
            job.fail(RequestError(503, "model workers died, and none came back in time", 1.0))
        elif reason == "share":
            job.fail(RequestError(429, "gave way in the queue to a tenant that has less in it", 0.1))
        else:
            job.fail(RequestError(429, "it can no longer be answered by its deadline", 0.1))

    def _set_timer(self) -> None:
        """Come back when a batch can be sent ahead, and when the first request must have begun: a late one is not to
        wait for a worker to hear so."""
        due_s = min(self._queues.next_due_s + TICK_S, self._next_ahead_s())
        if due_s >= self._timer_due_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(due_s - self._clock(), 0.0), self._on_timer)

    def _next_ahead_s(self) -> float:
        lane = self._queues.most_urgent()
        if lane is None or not self._queues.is_worth_sending(lane):
            return math.inf
        now = self._clock()
        return min(
            [at_s for busy in self._busy.values() if (at_s := self._ahead_s(busy)) > now], default=math.inf
        )

    def _on_timer(self) -> None:
        self._timer, self._timer_due_s = None, math.inf
        self.pump()

    def _start(self, lane: Lane, number: int, worker: Worker, batch: list[Job], now: float) -> None:
        of_class = [0] * len(self._terms.shares)
        for caller, own in by_caller(batch).items():
            of_class[caller.priority] += rows_of(own)
        profile, rows = lane.levels[number].profile, sum(of_class)
        seconds, hang_s = profile.latency_s(rows), HANG_S + HANG_BATCHES * profile.bound_s(rows)
        sent = Sent(seconds, profile.spread_s(rows), hang_s, len(batch), tuple(of_class))
        self._put_to_work(worker, sent, now)
        self._queues.charge(of_class, seconds)
        within_s = _begin_within_s(batch, sent, now)
        answer = worker.call(*collate(lane.levels[number].program, batch), within_s)
        self._spawn(self._run(lane, number, worker, batch, sent, now, answer))

    def _put_to_work(self, worker: Worker, sent: Sent, now: float) -> Sent:
        if worker in self._busy:
            self._busy[worker].add(sent, now)
        else:
            self._busy[worker] = Busy(sent, now)
        return sent

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(
        self,
        lane: Lane,
        number: int,
        worker: Worker,
        batch: list[Job],
        sent: Sent,
        now: float,
        answer: Awaitable[tuple[Reply, bytes]],
    ) -> None:
        busy = self._busy[worker]
        hung = asyncio.get_running_loop().call_later(busy.hang_s, worker.kill)
        overrun = Overrun(batch, self._clock, lambda jobs: self._answer_meanwhile(lane, jobs))
        try:
            reply, body = await answer
        except WorkerLost:
            self._queues.spend_every_spare()
            if busy.lose() is sent:
                self._retry(lane, batch)
            else:
                for job in batch:
                    self._requeue(lane, job)
            self._released(worker, sent, self._clock())
            return
        finally:
            hung.cancel()
            overrun.cancel()
        start = max(now, busy.began_s)  # it may have waited there behind another
        ended_s = max(self._ended_s(reply), start)
        self._idle.note(worker, reply.due, start)
        if self._sent_back(lane, batch, reply, ended_s):
            self._released(worker, sent, ended_s)
            return
        lane.observe(number, rows_of(batch), ended_s - start)
        lane.measured_s = ended_s
        self._released(worker, sent, ended_s)  # it runs its next batch while this one's answers are written
        self._settle(lane, number, batch, split(batch, reply, body), start, ended_s - start)

    def _sent_back(self, lane: Lane, batch: list[Job], reply: Reply, now: float) -> bool:
        """Tell the requests of a batch that has no answers so, or run them again; False where it has answers."""
        if reply.late:
            for job in batch:
                if not job.future.done():
                    self._give_up(lane, job, "late", now)
            return True
        if reply.nan is not None:
            self._refuse_nan(lane, batch, reply.nan)
            return True
        error = reply.error or misfit(batch, reply)
        if error is not None:
            self._fail(lane, batch, error)
        return error is not None

    def _ended_s(self, reply: Reply) -> float:
        """Return when a run ended, and learn how late that is heard of."""
        late_s = 0.0 if reply.ended_s is None else max(self._workers_clock() - reply.ended_s, 0.0)
        self._hearing.observe(late_s)
        self._queues.ahead_s = self._hearing.bound_s + TICK_S
        return self._clock() - late_s

    def _released(self, worker: Worker, sent: Sent, ended_s: float) -> None:
        """A worker's batch has ended, or never will; go on."""
        if not self._busy[worker].end(sent, ended_s):
            del self._busy[worker]
            self.pool.give_back(worker)
        self.pump()

    def _settle(
        self,
        lane: Lane,
        number: int,
        batch: list[Job],
        results: list[dict[str, Tensor]],
        start: float,
        seconds: float,
    ) -> None:
        rows, name, num_answered = rows_of(batch), lane.levels[number].name, 0
        self._metrics.observe_batch(lane.name, rows, seconds)
        for caller, own in by_caller(batch).items():
            self._metrics.observe_use(caller, seconds * rows_of(own) / rows)
        waited = self._metrics.queue_seconds.of(lane.name)
        for job, tensors in zip(batch, results, strict=True):
            queue_s = start - job.queued_s
            waited.observe(queue_s)
            if job.future.done():
                continue  # its client has gone, or it was answered meanwhile
            num_answered += 1
            job.future.set_result(Result(tensors, queue_s, seconds, rows, name))
            if number:
                self._idle.offer(lane, name, job, tensors, start + seconds)
        self._metrics.observe_level(lane.name, name, num_answered)
        # The loop runs this once it has written the answers, which it was asked to do before.
        asyncio.get_running_loop().call_soon(self._written, lane, start + seconds)

    def _written(self, lane: Lane, ended_s: float) -> None:
        lane.writing.observe(self._clock() - ended_s)

    def _refuse_nan(self, lane: Lane, batch: list[Job], nan: Nan) -> None:
        """Those that hold NaN are their senders' fault; the others are run without them."""
        error, bad = RequestError(400, f"input {nan.input!r}: an element is NaN"), set(nan.rows)
        ends = itertools.accumulate(job.rows for job in batch)
        own = [range(end - job.rows, end) for job, end in zip(batch, ends, strict=True)]
        guilty = [len(batch) == 1 or not bad.isdisjoint(rows) for rows in own]
        if not any(guilty):
            self._fail(lane, batch, str(error))
            return
        for job, its_own in zip(batch, guilty, strict=True):
            if its_own:
                job.fail(error)
            else:
                self._requeue(lane, job)

    def _fail(self, lane: Lane, batch: list[Job], error: str) -> None:
        """One bad request must not fail its neighbours: each of a failed batch is tried once by itself."""
        if len(batch) == 1:
            batch[0].fail(RequestError(422, f"the model failed on this input: {error}"))
            return
        for job in batch:
            job.run_alone()
            self._requeue(lane, job)

    def _retry(self, lane: Lane, batch: list[Job]) -> None:
        self._metrics.retried.labels(lane.name).inc(len(batch))
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
            lane.spend_spare(job)
            self._queues.add(lane, job)


def _begin_within_s(batch: Sequence[Job], sent: Sent, now: float) -> float | None:
    """Return how long a batch may wait at a worker: later, the answer would be too late for all who are in it.

    None where one is run to measure how long that takes.
    """
    if any(job.must_run for job in batch):
        return None
    return max([job.deadline_s for job in batch]) - sent.seconds - now
