"""Open-loop load: requests leave when they are due, whether or not the server keeps up."""

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable

from tradewind import names
from tradewind.scale.histogram import Histogram
from tradewind.scale.outcome import NO_VERDICT, LoadPlan, LoadResult, judge
from tradewind.scale.runtime import quiet_collector, raise_open_files, run_in_loop
from tradewind.scale.schedule import SCHEDULES
from tradewind.scale.wire import Bodies, Connection, Target, http_parser, parse_target, request_source

_REFUSALS = (429, 503)
_BURST = 16


class _Meter:
    """Counts outcomes of the requests after the warm-up."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.offered = self.sent = self.ok = self.in_deadline = self.refused = self.errors = self.starved = 0
        self.statuses: Counter[str] = Counter()
        self.latency, self.refusals, self.lag = Histogram(), Histogram(), Histogram()

    def answer(self, status: int, latency_ms: float) -> None:
        self.statuses[str(status)] += 1
        if 200 <= status < 300:
            self.ok += 1
            self.in_deadline += latency_ms <= self.plan.deadline_ms
            self.latency.record(latency_ms)
        elif status in _REFUSALS:
            self.refused += 1
            self.refusals.record(latency_ms)
        else:
            self.errors += 1

    def failure(self, why: str, age_ms: float | None = None) -> None:
        self.statuses[why] += 1
        self.errors += 1
        if age_ms is not None:
            self.latency.record(age_ms)


class _OpenLoop:
    """Sends each request when it is due, on an idle connection or a new one."""

    def __init__(self, plan: LoadPlan, target: Target, request: Callable[[int], bytes]) -> None:
        schedule = SCHEDULES[plan.schedule]
        self.arrivals: array[float] = schedule(plan.rate, plan.warmup_s + plan.duration_s, plan.seed)
        self.plan, self.target, self.request = plan, target, request
        self.meter = _Meter(plan)
        self.parser = http_parser()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.begin = 0.0
        self.next = self.finished = self.opening = self.open = 0
        self.idle: list[Connection] = []
        self.waiting: deque[int] = deque()
        self.flying: dict[int, Connection] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> _Meter:
        """Sends everything and returns when every request is answered, lost or given up."""
        self.begin = time.monotonic() + 0.02
        self._wake()
        self._give_up()
        await self.done
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in [*self.idle, *self.flying.values()]:
            connection.closing = True
            connection.abort("")
        await asyncio.sleep(0)
        return self.meter

    def _due(self, ticket: int) -> float:
        return self.begin + self.arrivals[ticket]

    def _counts(self, ticket: int) -> bool:
        return self.arrivals[ticket] >= self.plan.warmup_s

    def _wake(self) -> None:
        arrivals, begin = self.arrivals, self.begin
        for _ in range(_BURST):
            if self.next == len(arrivals):
                self._finish(0)
                return
            late = time.monotonic() - begin - arrivals[self.next]
            if late < 0:
                self.loop.call_later(-late, self._wake)
                return
            self._handle(self.next, late)
            self.next += 1
        self.loop.call_soon(self._wake)

    def _handle(self, ticket: int, late: float) -> None:
        if self._counts(ticket):
            self.meter.offered += 1
            self.meter.lag.record(late * 1000)
        if self.idle:
            self._send(self.idle.pop(), ticket)
            return
        self.waiting.append(ticket)
        if self.open + self.opening >= self.plan.connections:
            self.meter.starved += self._counts(ticket)
        elif self.opening < len(self.waiting):
            self._open()

    def _send(self, connection: Connection, ticket: int) -> None:
        self.flying[ticket] = connection
        self.meter.sent += self._counts(ticket)
        connection.send(ticket, self.request(ticket))

    def _open(self) -> None:
        self.opening += 1
        task = self.loop.create_task(self._connect())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connect(self) -> None:
        host, port, _, tls = self.target
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self, self.parser), host, port, ssl=tls
            )
        except OSError as error:
            self.opening -= 1
            if self.waiting:
                self._fail(self.waiting.popleft(), f"connect: {type(error).__name__}")
            return
        self.opening -= 1
        self.open += 1
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        if self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.idle.append(connection)

    def answered(self, connection: Connection, status: int) -> None:
        ticket, connection.ticket = connection.ticket, -1
        if ticket < 0:
            connection.closing = True
        else:
            del self.flying[ticket]
            if self._counts(ticket):
                self.meter.answer(status, (time.monotonic() - self._due(ticket)) * 1000)
            self._finish(1)
        if not connection.closing:
            self._release(connection)
        else:
            self.open -= 1
            self._refill()

    def lost(self, connection: Connection, why: str) -> None:
        self.open -= 1
        if connection.ticket in self.flying:
            del self.flying[connection.ticket]
            self._fail(connection.ticket, why)
        elif connection in self.idle:
            self.idle.remove(connection)
        self._refill()

    def _refill(self) -> None:
        if self.opening < len(self.waiting) and self.open + self.opening < self.plan.connections:
            self._open()

    def _fail(self, ticket: int, why: str, age_s: float | None = None) -> None:
        if self._counts(ticket):
            self.meter.failure(why, None if age_s is None else age_s * 1000)
        self._finish(1)

    def _finish(self, count: int) -> None:
        self.finished += count
        if self.finished == len(self.arrivals) and not self.done.done():
            self.done.set_result(None)

    def _give_up(self) -> None:
        """Drops what is too old; in flight and waiting are both ordered by due time, oldest first."""
        if self.done.done():
            return
        now, limit = time.monotonic(), self.plan.give_up_s()
        while self.waiting and now - self._due(self.waiting[0]) > limit:
            ticket = self.waiting.popleft()
            self._fail(ticket, "given up unsent", now - self._due(ticket))
        for ticket in list(self.flying):
            if now - self._due(ticket) <= limit:
                break
            connection = self.flying.pop(ticket)
            self._fail(ticket, "no answer", now - self._due(ticket))
            connection.abort("given up")
        self.loop.call_later(min(0.05, limit / 4), self._give_up)


def run_load(
    url: str,
    rate: float,
    duration_s: float,
    deadline_ms: float = 50.0,
    bodies: Bodies = None,
    *,
    objective: float = 0.99,
    headers: dict[str, str] | None = None,
    seed: int = 0,
    warmup_s: float = 0.0,
    connections: int = 512,
    timeout_s: float | None = None,
    max_lag_ms: float | None = None,
    schedule: str = "poisson",
    multiple: float | None = None,
    allow_remote: bool = False,
) -> LoadResult:
    """Offers `rate` requests per second for `duration_s` and says what became of them.

    Every request carries the deadline in the `x-deadline-ms` header. Raises SpecError for a URL on
    another machine unless `allow_remote`, and MissingExtraError without httptools.
    """
    plan = LoadPlan(
        url=url,
        rate=rate,
        duration_s=duration_s,
        deadline_ms=deadline_ms,
        objective=objective,
        headers=headers or {},
        seed=seed,
        warmup_s=warmup_s,
        connections=connections,
        timeout_s=timeout_s,
        max_lag_ms=max_lag_ms,
        schedule=schedule,
        multiple=multiple,
        allow_remote=allow_remote,
    )
    return execute(plan, bodies)


def execute(plan: LoadPlan, bodies: Bodies = None) -> LoadResult:
    """Runs a plan to its end in an event loop of its own."""
    target = parse_target(plan.url, plan.allow_remote)
    headers = {names.HEADER_DEADLINE: f"{plan.deadline_ms:g}"} | plan.headers
    request = request_source(target, bodies, headers)
    started_s = time.time()
    raise_open_files(plan.connections)
    with quiet_collector():
        meter = run_in_loop(lambda: _OpenLoop(plan, target, request).run())
    return _summarize(plan, meter, started_s)


def _summarize(plan: LoadPlan, meter: _Meter, started_s: float) -> LoadResult:
    attainment = meter.in_deadline / meter.offered if meter.offered else 0.0
    verdict, why = judge(plan, meter.offered, attainment, meter.lag.quantile(0.99), meter.starved)
    latency, lag = meter.latency, meter.lag
    return LoadResult(
        url=plan.url,
        rate=plan.rate,
        duration_s=plan.duration_s,
        deadline_ms=plan.deadline_ms,
        objective=plan.objective,
        seed=plan.seed,
        offered=meter.offered,
        sent=meter.sent,
        ok=meter.ok,
        in_deadline=meter.in_deadline,
        refused=meter.refused,
        errors=meter.errors,
        statuses=dict(meter.statuses.most_common()),
        offered_per_s=meter.offered / plan.duration_s,
        goodput_per_s=meter.in_deadline / plan.duration_s,
        attainment=attainment,
        p50_ms=latency.quantile(0.5),
        p90_ms=latency.quantile(0.9),
        p99_ms=latency.quantile(0.99),
        p999_ms=latency.quantile(0.999),
        mean_ms=latency.mean_ms,
        max_ms=latency.max_ms,
        refused_p99_ms=meter.refusals.quantile(0.99),
        schedule_lag_p50_ms=lag.quantile(0.5),
        schedule_lag_p99_ms=lag.quantile(0.99),
        schedule_lag_max_ms=lag.max_ms,
        starved=meter.starved,
        kept_schedule=verdict != NO_VERDICT,
        verdict=verdict,
        why=why,
        multiple=plan.multiple,
        started_s=started_s,
        histogram=latency.to_dict(),
    )
