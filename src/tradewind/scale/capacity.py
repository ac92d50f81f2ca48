"""How much an endpoint can do: the highest goodput that a closed loop reaches."""

import asyncio
import time
from collections.abc import Callable, Iterator

import msgspec

from tradewind.errors import TradewindError
from tradewind.scale.histogram import Histogram
from tradewind.scale.runtime import quiet_collector, run_in_loop
from tradewind.scale.wire import (
    Bodies,
    Connection,
    Target,
    deadline_header,
    http_parser,
    parse_target,
    request_source,
)

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64)
_ENOUGH_GAIN = 1.05
_FLAT_LEVELS = 2
"""One flat level may be a batching server that waits for company; two are a limit."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What one number of busy connections achieved."""

    concurrency: int
    answered_per_s: float
    goodput_per_s: float
    """2xx answers inside the deadline, per second."""
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers that were not 2xx, and lost connections."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The highest goodput, where it was reached, and every level that was tried."""

    per_s: float
    concurrency: int
    levels: tuple[Level, ...]


class _ClosedLoop:
    """Keeps `concurrency` connections busy: each sends its next request when it has its answer."""

    def __init__(self, target: Target, request: Callable[[int], bytes], deadline_ms: float) -> None:
        self.target, self.request, self.deadline_ms = target, request, deadline_ms
        self.parser = http_parser()
        self.latency = Histogram()
        self.good = self.failed = self.sent = 0
        self.counting = False
        self.sent_at: dict[Connection, float] = {}

    async def run(self, concurrency: int, warmup_s: float, duration_s: float) -> Level:
        for _ in range(concurrency):
            await self._connect()
        await asyncio.sleep(warmup_s)
        self.counting, begin = True, time.monotonic()
        await asyncio.sleep(duration_s)
        self.counting, took_s = False, time.monotonic() - begin
        for connection in list(self.sent_at):
            connection.abort("end")
        return Level(
            concurrency=concurrency,
            answered_per_s=self.latency.count / took_s,
            goodput_per_s=self.good / took_s,
            p50_ms=self.latency.quantile(0.5),
            p99_ms=self.latency.quantile(0.99),
            failed=self.failed,
        )

    async def _connect(self) -> None:
        host, port, _, tls = self.target
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self, self.parser), host, port, ssl=tls
        )
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        self.sent_at[connection] = time.monotonic()
        connection.send(self.sent, self.request(self.sent))
        self.sent += 1

    def answered(self, connection: Connection, status: int) -> None:
        connection.ticket = -1
        latency_ms = (time.monotonic() - self.sent_at[connection]) * 1000
        if self.counting and 200 <= status < 300:
            self.latency.record(latency_ms)
            self.good += latency_ms <= self.deadline_ms
        elif self.counting:
            self.failed += 1
        if connection.closing:
            self.lost(connection, "server closes")
        else:
            self._send(connection)

    def lost(self, connection: Connection, why: str) -> None:
        self.sent_at.pop(connection, None)
        self.failed += self.counting and why != "server closes"


def find_capacity(
    url: str,
    bodies: Bodies = None,
    *,
    deadline_ms: float = 50.0,
    duration_s: float = 1.0,
    warmup_s: float = 0.3,
    concurrencies: tuple[int, ...] = CONCURRENCIES,
    headers: dict[str, str] | None = None,
    allow_remote: bool = False,
) -> Capacity:
    """The highest goodput over rising numbers of busy connections, `duration_s` each.

    Stops after two levels in a row that add less than 5%. A closed loop slows down with the server, so
    this finds how much it can do, not how it behaves when more is asked; `run_load` does.
    """
    target = parse_target(url, allow_remote)
    request = request_source(target, bodies, deadline_header(deadline_ms) | (headers or {}))

    def measure(concurrency: int) -> Level:
        with quiet_collector():
            return run_in_loop(
                lambda: _ClosedLoop(target, request, deadline_ms).run(concurrency, warmup_s, duration_s)
            )

    try:
        levels = tuple(_climb(measure, concurrencies))
    except OSError as error:
        raise TradewindError(f"{url}: cannot connect ({error}); is the endpoint up?") from error
    best = max(levels, key=lambda level: level.goodput_per_s)
    if not best.goodput_per_s:
        raise TradewindError(f"{url}: no request was answered with 2xx inside {deadline_ms:g} ms")
    return Capacity(per_s=best.goodput_per_s, concurrency=best.concurrency, levels=levels)


def _climb(measure: Callable[[int], Level], concurrencies: tuple[int, ...]) -> Iterator[Level]:
    best, flat = 0.0, 0
    for concurrency in concurrencies:
        level = measure(concurrency)
        yield level
        flat = flat + 1 if level.goodput_per_s < best * _ENOUGH_GAIN else 0
        if flat == _FLAT_LEVELS:
            return
        best = max(best, level.goodput_per_s)
