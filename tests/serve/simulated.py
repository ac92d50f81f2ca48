"""The real dispatcher in a loop whose clock only moves when nothing is left to do, over workers that take exact times."""

import asyncio
import math
import selectors
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tradewind.serve import wire
from tradewind.serve.caller import ANYBODY, Caller
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.errors import RequestError
from tradewind.serve.execution import WorkerLost
from tradewind.serve.jobs import Job, Prepared, Tensor
from tradewind.serve.lanes import Accepts, Instant, Lane, Level
from tradewind.serve.metrics import Metrics
from tradewind.serve.profile import Profile
from tradewind.serve.queues import Terms

Cost = Callable[[int], float]
ROW = Tensor("UINT8", (1, 1), b"\0")


class Deadlock(AssertionError):
    """Nothing is left to do, and something still waits."""


class _Skipping(selectors.DefaultSelector):
    """Waits for no time at all, and moves the clock by what it was asked to wait."""

    now = 0.0
    watch: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        if timeout > 0.0:
            self.watch(self.now)
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; `watch` is called with the time whenever that is about to go on."""

    def __init__(self, watch: Callable[[float], None] = lambda now: None) -> None:
        self._skipping = _Skipping()
        self._skipping.watch = watch
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


class VirtualWorker:
    """Answers batches one after the other, each after exactly the time that its program takes for its rows.

    `loses` makes it die of one instead, at its end, and of all that wait behind that; it dies too at each of `dies_at_s`, or
    as soon after as it runs something. `watch` is called with the program and the rows
    when one begins. Whoever called hears of an answer `heard_after_s` later.
    """

    def __init__(
        self,
        costs: Mapping[str, Cost],
        watch: Callable[[str, bytes], None] = lambda program, rows: None,
        heard_after_s: float = 0.0,
    ) -> None:
        self._costs = costs
        self._heard_after_s = heard_after_s
        self._watch = watch
        self.loses = 0
        self.dies_at_s: list[float] = []
        self._turn = asyncio.Lock()
        self._lives = 0

    async def call(
        self, call: wire.Call, buffers: Sequence[wire.Buffer], begin_within_s: float | None = None
    ) -> tuple[wire.Reply, bytes]:
        loop = asyncio.get_running_loop()
        rows, life = call.tensors[0].shape[0], self._lives
        by_s = loop.time() + (math.inf if begin_within_s is None else begin_within_s)
        async with self._turn:
            if self._lives != life:
                raise WorkerLost
            if loop.time() > by_s:
                return wire.Reply(late=True), b""
            self._watch(call.program, b"".join(buffers))
            ends_s = loop.time() + self._costs[call.program](rows)
            if self.dies_at_s and self.dies_at_s[0] < ends_s:
                await asyncio.sleep(self.dies_at_s.pop(0) - loop.time())
                self._die()
            await asyncio.sleep(ends_s - loop.time())
            if self.loses:
                self.loses -= 1
                self._die()
        ended_s = loop.time()
        if self._heard_after_s:
            await asyncio.sleep(self._heard_after_s)
        spec = wire.TensorSpec("y", "UINT8", (rows, 1))
        return wire.Reply(tensors=(spec,), ended_s=ended_s), bytes(rows)

    def _die(self) -> None:
        self._lives += 1
        raise WorkerLost

    def kill(self) -> None:
        raise AssertionError("nothing hangs here")


class VirtualPool:
    """Workers that are never replaced, for they never end."""

    def __init__(self, workers: Sequence[VirtualWorker]) -> None:
        self.num_workers = self.size = len(workers)
        self._idle = list(workers)

    @property
    def idle(self) -> int:
        return len(self._idle)

    def take(self) -> VirtualWorker | None:
        return self._idle.pop() if self._idle else None

    def give_back(self, worker: VirtualWorker) -> None:
        self._idle.append(worker)


class Ask(NamedTuple):
    """A request to come."""

    at_s: float
    budget_s: float = 0.05
    caller: Caller = ANYBODY
    rows: int = 1
    floor: int | None = None
    """The cheapest level that it accepts, of those that take a worker; None: all levels."""
    leaves_s: float | None = None
    """When its client leaves; None when it stays."""

    @property
    def accepts(self) -> Accepts | None:
        return None if self.floor is None else Accepts(self.floor, instant=False)


class Outcome(NamedTuple):
    """What became of it: the level and the time of its answer, or the status of its refusal."""

    ask: Ask
    ended_s: float
    level: str | None
    status: int = 200

    @property
    def in_time(self) -> bool:
        return self.status == 200 and self.ended_s <= self.ask.at_s + self.ask.budget_s + 1e-9


class Simulation:
    """One model of several levels, best first, each named and with its cost in seconds by rows."""

    def __init__(
        self,
        levels: Mapping[str, Cost],
        *,
        max_batch: int = 16,
        num_workers: int = 1,
        terms: Terms | None = None,
        instant: str | None = None,
        slow_down: float = 1.0,
        heard_after_s: float = 0.0,
    ) -> None:
        self.terms = terms or Terms()
        self._levels, self._max_batch, self._instant = levels, max_batch, instant
        real = {name: (lambda n, cost=cost: slow_down * cost(n)) for name, cost in levels.items()}
        self.workers = [VirtualWorker(real, self._begin, heard_after_s) for _ in range(num_workers)]
        self.pool = VirtualPool(self.workers)
        self.metrics = Metrics(self.terms.slo_s, [str(c) for c in range(len(self.terms.shares))])
        self.audited: list[str] = []
        self.jobs: list[Job] = []
        """What was queued, in the order of its coming; its rows hold its place in this list, modulo 256."""
        self.started: list[tuple[float, int, list[Job]]] = []
        """Every batch: when it began, at which level, and what was in it; of at most 256 requests."""
        self.rested: list[float] = []
        """When a worker was left idle although something waited."""

    def run(self, asks: Sequence[Ask]) -> list[Outcome]:
        """Play all requests and return what became of each, in their order."""
        loop = VirtualLoop(self._watch)
        try:
            return loop.run_until_complete(self._play(sorted(asks, key=lambda ask: ask.at_s)))
        finally:
            loop.close()

    async def _play(self, asks: Sequence[Ask]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(self.metrics, loop.time, self.terms, loop.time)
        self.dispatcher.pool = self.pool
        self.dispatcher.add_lane(self._lane())
        players: list[asyncio.Task[Outcome]] = []
        for ask in asks:
            await asyncio.sleep(ask.at_s - loop.time())
            players.append(loop.create_task(self._player(ask)))
        outcomes = list(await asyncio.gather(*players))
        while self.dispatcher._tasks:
            await asyncio.wait(set(self.dispatcher._tasks))
        return outcomes

    def _lane(self) -> Lane:
        sizes = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= self._max_batch]
        levels = [
            Level(name, name, Profile({n: cost(n) for n in sizes})) for name, cost in self._levels.items()
        ]
        instant = Instant(self._instant, lambda prepared: {"y": ROW}) if self._instant else None
        return Lane("model", levels, len(self.terms.shares), self.terms.slo_s, instant, self._lost)

    def _lost(self, full: object, degraded: object) -> float:
        self.audited.append("model")
        return 0.25

    def _begin(self, program: str, rows: bytes) -> None:
        """A batch begins; not one for its own sake, of what has its answer and is made again."""
        jobs = [self.jobs[i] for i in sorted(set(rows))]
        if not all(job.future.done() and not job.future.cancelled() for job in jobs):
            now = asyncio.get_running_loop().time()
            self.started.append((now, [*self._levels].index(program), jobs))

    def _watch(self, now: float) -> None:
        """Nothing is left to do before time goes on."""
        if self.dispatcher._queues.length and self.pool.idle:
            self.rested.append(now)

    async def _player(self, ask: Ask) -> Outcome:
        loop = asyncio.get_running_loop()
        rows = bytes([len(self.jobs) % 256]) * ask.rows
        prepared = Prepared({"x": Tensor("UINT8", (ask.rows, 1), rows)}, ask.rows, "key")
        try:
            job = self.dispatcher.submit("model", prepared, ask.at_s + ask.budget_s, ask.caller, ask.accepts)
            self.jobs.append(job)
            if ask.leaves_s is not None:
                loop.call_at(ask.leaves_s, self._leave, job)
            result = await job.future
        except RequestError as error:
            return Outcome(ask, loop.time(), None, error.status)
        except asyncio.CancelledError:
            return Outcome(ask, loop.time(), None, 499)
        return Outcome(ask, loop.time(), result.level)

    def _leave(self, job: Job) -> None:
        if not job.future.done():
            self.dispatcher.cancel("model", job)


def linear(overhead_s: float, row_s: float) -> Cost:
    """A batch's cost: a fixed part and a part per row."""
    return lambda rows: overhead_s + row_s * rows


def capacity(cost: Cost, max_batch: int, num_workers: int = 1) -> float:
    """Rows a second in full batches."""
    return num_workers * max_batch / cost(max_batch)


def steady(rate: float, duration_s: float, *, seed: int = 0, **ask: Any) -> list[Ask]:
    """Requests of a Poisson process."""
    from tradewind.scale.schedule import poisson

    return [Ask(at, **ask) for at in poisson(rate, duration_s, seed)]


def in_time(outcomes: Sequence[Outcome], keep: Callable[[Ask], bool] = lambda ask: True) -> float:
    """The share of those kept that were answered in time."""
    kept = [o for o in outcomes if keep(o.ask)]
    return sum(o.in_time for o in kept) / len(kept)
