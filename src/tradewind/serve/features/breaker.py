"""Whether a store is known to be down, and one look now and then whether it is back."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import structlog

from tradewind.serve.features.base import StoreDown
from tradewind.serve.features.metrics import FeatureMetrics
from tradewind.spec.secret import masked

FIRST_S, LONGEST_S = 0.1, 5.0
"""Before the first look, and between two at most: each is twice as long after as the one before."""
CALM_S = 30.0
"""For which a store must have been back before its next failure is a new one, and not the old one again."""
CHECK_S = 1.0
"""For which a look may take."""

log = structlog.get_logger()
Sleep = Callable[[float], Awaitable[None]]


class Breaker:
    """Open while the store is down: then nobody asks it but one task in the background."""

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        metrics: FeatureMetrics,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open = False
        self._check = check
        self._metrics = metrics
        self._sleep = sleep
        self._clock = clock
        self._back_s = -math.inf
        self._pauses = pauses_s()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once; open where there is nobody."""
        error = await self._look()
        if error is not None:
            self.trip(error)

    def trip(self, error: Exception) -> None:
        """The store did not answer."""
        if not self.open:
            if self._clock() - self._back_s > CALM_S:
                self._pauses = pauses_s()
            self._set(True)
            log.warning("features are down", why=masked(f"{type(error).__name__}: {error}"))
            self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self) -> None:
        for pause_s in self._pauses:
            await self._sleep(pause_s)
            self._metrics.probes.inc()
            if await self._look() is None:
                break
        self._set(False)
        self._back_s = self._clock()
        log.info("features are back")

    async def _look(self) -> Exception | None:
        try:
            async with asyncio.timeout(CHECK_S):
                await self._check()
        except TimeoutError:
            return StoreDown(f"no answer inside {CHECK_S:g} s")
        except Exception as error:  # noqa: BLE001 — whatever it is, it is not back; the log says it
            return error
        return None

    def _set(self, is_open: bool) -> None:
        self.open = is_open
        self._metrics.down.set(is_open)


def pauses_s() -> Iterator[float]:
    """Seconds before each look, without end; drawn, so that many servers do not look at the same instant."""
    longest_s = FIRST_S
    while True:
        yield longest_s * random.uniform(0.5, 1.0)
        longest_s = min(2 * longest_s, LONGEST_S)
