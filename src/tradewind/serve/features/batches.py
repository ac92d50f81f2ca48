"""Fetches gathered: all users that are asked for during one round trip go into the next."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tradewind.serve.features.base import Fetched, Malformed, Outcome, Store, Stored, StoreDown, decode
from tradewind.serve.features.breaker import Breaker
from tradewind.serve.features.metrics import FeatureMetrics

MAX_USERS = 256
"""In one round trip: a longer one would hold up what comes behind it, here and in the store."""

SLICE = 16
"""Users that are told at once: the requests that go on with that are work, and others want to be heard in between."""


class Waiter(NamedTuple):
    """Who asked for a user, and when."""

    future: asyncio.Future[Fetched]
    asked_s: float
    timer: asyncio.TimerHandle


class Batches:
    """A source over a store elsewhere: one round trip at a time, none while the store is down.

    A round trip that takes longer than `limit_s` is given up, and the store is taken to be down.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        metrics: FeatureMetrics,
        limit_s: float,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._store = store
        self._metrics = metrics
        self._limit_s = limit_s
        self._breaker = breaker or Breaker(store.check, metrics)
        self._clock = clock
        self._waiting: dict[str, list[Waiter]] = {}
        self._asked: dict[str, list[Waiter]] = {}
        """Who waits for the round trip that is under way."""
        self._sending: asyncio.Task[None] | None = None
        metrics.waiting.set_function(self._num_waiting)

    async def start(self) -> None:
        await self._breaker.start()

    async def close(self) -> None:
        await self._breaker.close()
        waiters = self._waiters()
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending
        for waiter in waiters:
            waiter.timer.cancel()
            waiter.future.cancel()
        await self._store.close()

    def fetch(self, user: str, until_s: float) -> Fetched | asyncio.Future[Fetched]:
        now = self._clock()
        if self._breaker.open or until_s <= now:
            found = Fetched(Outcome.DOWN if self._breaker.open else Outcome.LATE)
            self._metrics.observe(found)
            return found
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Fetched] = loop.create_future()
        late = loop.call_later(until_s - now, self._settle, future, now, Outcome.LATE)
        self._waiting.setdefault(user, []).append(Waiter(future, now, late))
        if self._sending is None:
            # Begins in the loop's next turn, when those that come with this one are there too.
            self._sending = asyncio.ensure_future(self._send())
        return future

    async def _send(self) -> None:
        try:
            while users := self._next():
                self._asked = users
                await self._ask(users)
        finally:
            self._asked, self._sending = {}, None

    def _next(self) -> dict[str, list[Waiter]]:
        """Take the users that go into the next round trip; nobody waits any more for those left out."""
        taken: dict[str, list[Waiter]] = {}
        while self._waiting and len(taken) < MAX_USERS:
            user = next(iter(self._waiting))
            waiters = [waiter for waiter in self._waiting.pop(user) if not waiter.future.done()]
            if waiters:
                taken[user] = waiters
        return taken

    async def _ask(self, users: dict[str, list[Waiter]]) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                values = await self._store.get(list(users))
        except TimeoutError:
            self._fail(StoreDown(f"no answer inside {self._limit_s:g} s"))
            return
        except Exception as error:  # noqa: BLE001 — whatever it is, requests go on without; the log says it
            self._fail(error)
            return
        self._metrics.observe_batch(self._name, len(users))
        for number, (waiters, value) in enumerate(zip(users.values(), values, strict=True), 1):
            self._tell(waiters, value)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _fail(self, error: Exception) -> None:
        """Nobody waits for a store that is down: neither who was asked for, nor who would have been next."""
        self._breaker.trip(error)
        for waiter in self._waiters():
            self._finish(waiter, Outcome.FAILED)

    def _tell(self, waiters: Sequence[Waiter], value: bytes | None) -> None:
        if all(waiter.future.done() for waiter in waiters):
            return
        outcome, stored = Outcome.MISSING, None
        if value is not None:
            try:
                outcome, stored = Outcome.HIT, decode(value)
            except Malformed as error:
                outcome = Outcome.MALFORMED
                self._metrics.malformed(str(error))
        for waiter in waiters:
            self._finish(waiter, outcome, stored)

    def _finish(self, waiter: Waiter, outcome: Outcome, stored: Stored | None = None) -> None:
        waiter.timer.cancel()
        self._settle(waiter.future, waiter.asked_s, outcome, stored)

    def _settle(
        self, future: asyncio.Future[Fetched], asked_s: float, outcome: Outcome, stored: Stored | None = None
    ) -> None:
        if not future.done():
            found = Fetched(outcome, stored, self._clock() - asked_s, asked_s)
            self._metrics.observe(found)
            future.set_result(found)

    def _waiters(self) -> list[Waiter]:
        by_user = (*self._asked.values(), *self._waiting.values())
        return [waiter for waiters in by_user for waiter in waiters]

    def _num_waiting(self) -> int:
        return sum(not waiter.future.done() for waiter in self._waiters())
