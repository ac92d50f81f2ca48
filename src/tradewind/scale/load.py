"""Open-loop load: requests leave when they are due, whether or not the server keeps up."""

import asyncio
import resource
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tradewind.scale.gate import Gate
from tradewind.scale.outcome import Audit, LoadPlan, LoadResult
from tradewind.scale.recorder import ERROR, IN_TIME, LATE, REFUSED, Recorder
from tradewind.scale.runtime import quiet_collector, raise_open_files, run_in_loop
from tradewind.scale.stream import Recorded, Stream, make_stream
from tradewind.scale.summary import summarize
from tradewind.scale.wire import (
    Bodies,
    Target,
    deadline_header,
    http_parser,
    parse_target,
    request_source,
    with_less,
)

_BURST = 16
_TELL_S = 0.5
Source = Callable[[int], bytes]


class Progress(NamedTuple):
    """How far a run is, for whoever watches; the warm-up is in it."""

    elapsed_s: float
    total_s: float
    due: int
    in_time: int
    late: int
    refused: int
    errors: int
    lag_ms: float
    """How late the newest request was handled."""


Watch = Callable[[Progress], None]


class _OpenLoop:
    """Offers each request to its endpoint's gate when it is due, and notes what became of it."""

    def __init__(
        self, plan: LoadPlan, stream: Stream, targets: Sequence[Target], source: Source, watch: Watch | None
    ) -> None:
        self.plan, self.stream, self.watch = plan, stream, watch
        self.arrivals = stream.arrivals
        self.deadlines_ms = [kind.deadline_ms for kind in plan.classes] or [plan.deadline_ms]
        self.record = Recorder(len(self.arrivals))
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        parser = http_parser()
        self._source = source
        self.gates = [Gate(self, target, self._request, plan.connections, parser) for target in targets]
        for gate in self.gates:
            gate.sent = self._sent
        self.begin = 0.0
        self.next = self.finished = 0
        self.stopped_s: float | None = None

    async def run(self) -> "_OpenLoop":
        """Send everything and return when every request is answered, lost or given up, or on Ctrl-C."""
        self.begin = time.monotonic() + 0.02
        self._wake()
        self._give_up()
        if self.watch is not None:
            self._tell()
        try:
            await self.done
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            self.stopped_s = time.monotonic() - self.begin
            self.done.cancel()
        for gate in self.gates:
            await gate.close()
        await asyncio.sleep(0)
        return self

    def _wake(self) -> None:
        arrivals, begin = self.arrivals, self.begin
        for _ in range(_BURST):
            if self.next == len(arrivals) or self.done.done():
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
        self.record.lag_ms[ticket] = late * 1000
        if not self.gates[self.stream.endpoints[ticket]].offer(ticket):
            self.record.starved[ticket] = 1

    def _request(self, ticket: int) -> bytes:
        """The bytes of a request that is sent now. What it waited for is no longer left, and a caller would not say so."""
        request, late_ms = self._source(ticket), int(self._age_s(ticket) * 1000)
        return request if late_ms < 1 else with_less(request, self._deadline_ms(ticket), late_ms)

    def _deadline_ms(self, ticket: int) -> float:
        return self.deadlines_ms[self.stream.kinds[ticket]]

    def _sent(self, ticket: int) -> None:
        self.record.sent[ticket] = 1

    def _age_s(self, ticket: int) -> float:
        return time.monotonic() - self.begin - self.arrivals[ticket]

    def answer(self, ticket: int, status: int) -> None:
        self.record.answered(ticket, status, self._age_s(ticket) * 1000, self._deadline_ms(ticket))
        self._finish(1)

    def failure(self, ticket: int, why: str, age_s: float | None = None) -> None:
        self.record.failed(ticket, why, -1.0 if age_s is None else age_s * 1000)
        self._finish(1)

    def _finish(self, count: int) -> None:
        self.finished += count
        if self.finished == len(self.arrivals) and not self.done.done():
            self.done.set_result(None)

    def _give_up(self) -> None:
        if self.done.done():
            return
        limit_s = self.plan.give_up_s()
        for gate in self.gates:
            gate.give_up(self._age_s, limit_s)
        self.loop.call_later(min(0.05, limit_s / 4), self._give_up)

    def _tell(self) -> None:
        if self.done.done() or self.watch is None:
            return
        count, lag_ms = self.record.so_far, self.record.lag_ms[max(self.next - 1, 0)] if self.next else 0.0
        total_s = self.plan.warmup_s + self.plan.duration_s
        elapsed_s = max(time.monotonic() - self.begin, 0.0)
        outcomes = (count[IN_TIME], count[LATE], count[REFUSED], count[ERROR])
        self.watch(Progress(elapsed_s, total_s, self.next, *outcomes, lag_ms))
        self.loop.call_later(_TELL_S, self._tell)


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

    Every request carries in the `x-deadline-ms` header what is left of its deadline when it is sent. Raises SpecError for a URL on
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


def execute(
    plan: LoadPlan, bodies: Bodies = None, replay: Sequence[Recorded] = (), watch: Watch | None = None
) -> LoadResult:
    """Runs a plan to its end in an event loop of its own; on Ctrl-C, to there, with a result marked partial.

    `replay` sends recorded requests at their recorded distances instead of arrivals from `rate`, with their own
    bodies. `watch` is told twice a second how far it is.
    """
    urls = [plan.url, *(endpoint.url for endpoint in plan.endpoints)]
    targets = [parse_target(url, plan.allow_remote) for url in urls]
    stream = make_stream(plan, replay)
    if replay:
        recorded = [bytes(line.body) for line in replay]
        bodies = recorded.__getitem__
    source = _source(plan, stream, targets, bodies)
    raise_open_files(plan.connections * len(targets))
    started_s, started, used = time.time(), time.monotonic(), resource.getrusage(resource.RUSAGE_THREAD)
    with quiet_collector():
        ran = run_in_loop(lambda: _OpenLoop(plan, stream, targets, source, watch).run())
    took_s = time.monotonic() - started
    return summarize(
        plan,
        stream,
        ran.record,
        _audit(ran, used, took_s, time.time() - started_s - took_s),
        started_s,
        ran.stopped_s,
    )


def _source(plan: LoadPlan, stream: Stream, targets: Sequence[Target], bodies: Bodies) -> Source:
    """From a request's number to its bytes, by its endpoint and its class."""
    of_class = [(kind.deadline_ms, plan.headers | kind.headers) for kind in plan.classes]
    sources = [
        [
            request_source(target, bodies, deadline_header(deadline_ms) | headers)
            for deadline_ms, headers in of_class or [(plan.deadline_ms, plan.headers)]
        ]
        for target in targets
    ]
    if len(sources) == len(sources[0]) == 1:
        return sources[0][0]
    return lambda ticket: sources[stream.endpoints[ticket]][stream.kinds[ticket]](ticket)


def _audit(ran: _OpenLoop, before: resource.struct_rusage, took_s: float, clock_step_s: float) -> Audit:
    after = resource.getrusage(resource.RUSAGE_THREAD)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Audit(
        cpu_share=used_s / took_s,
        switched_out=after.ru_nivcsw - before.ru_nivcsw,
        connections=sum(gate.opened for gate in ran.gates),
        clock_step_ms=clock_step_s * 1000,
        unfinished=ran.next - ran.finished,
    )
