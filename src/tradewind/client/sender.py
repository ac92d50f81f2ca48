"""How a call is carried out: its tries, its hedge, and where each of them goes, inside one deadline."""

import asyncio
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from tradewind.client import call as calls
from tradewind.client.budget import Budget
from tradewind.client.call import Call
from tradewind.client.connection import Answer, Pool, parse_url
from tradewind.client.endpoints import Endpoints
from tradewind.client.errors import ClientError, DeadlineExceeded, ServerFailed, Unreachable
from tradewind.client.hedge import Hedging
from tradewind.client.retry import Retry, RetryPolicy

LEAST_MS = 1.0
"""With less than this left, nothing is sent any more."""
PROBE_S = 1.0
"""How long an ejected endpoint may take to say that it is ready."""
_CLOCK_S = 2e-3
"""An event loop's clock stands still while it works."""


class Options(NamedTuple):
    """How a client behaves; every field has a default that suits an online service."""

    deadline_ms: float = 1000.0
    """Budget of a call that states none, for all its tries together."""
    api_key: str | None = None
    tenant: str | None = None
    priority: str | None = None
    retry_share: float = 0.1
    """Retries, at most this share of calls (and ten in reserve); 0 for none."""
    hedge_share: float = 0.05
    """Hedges, at most this share of calls; 0 for none."""
    retries: RetryPolicy = RetryPolicy()
    tls: ssl.SSLContext | None = None
    """For https; the system's certificate authorities when None."""


DEFAULTS = Options()


class Counts(msgspec.Struct):
    """What a client has done so far."""

    calls: int = 0
    sent: int = 0
    """Requests sent, retries and hedges included."""
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0


class Sender:
    """Sends calls to equal endpoints, and keeps what was learnt of them."""

    def __init__(self, urls: Sequence[str], options: Options, headers: Mapping[str, str]) -> None:
        self.counts = Counts()
        self._headers = headers
        self._policy = options.retries
        self._pools = [Pool(parse_url(url, options.tls)) for url in urls]
        self._rng = random.Random()
        self.endpoints = Endpoints(urls, self._rng)
        self._retry_budget = Budget(options.retry_share)
        self._hedging = Hedging(options.hedge_share)
        self._probes: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close every connection."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        for pool in self._pools:
            await pool.close()

    async def call(self, call: Call, deadline_s: float) -> tuple[Answer, str]:
        """The 200 answer of a call and the endpoint it came from, inside the deadline."""
        self.counts.calls += 1
        self._retry_budget.earn()
        self._probe_ejected()
        retry = Retry(self._policy, len(self._pools), deadline_s)
        last: ClientError | None = None
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                allowed = None
                while True:
                    endpoint = self.endpoints.pick(allowed)
                    try:
                        return await self._hedged(call, endpoint, deadline_s)
                    except ClientError as error:
                        last = error
                    step = retry.after(last, endpoint, time.monotonic(), self._rng.random())
                    if step is None or not self._retry_budget.spend():
                        raise last
                    self.counts.retries += 1
                    await asyncio.sleep(step.at_s - time.monotonic())
                    allowed = step.endpoints
        except TimeoutError:
            why = f"the deadline passed after {retry.tries} tries" + (
                f"; the last said: {last}" if last else ""
            )
            last = DeadlineExceeded(why)
            raise last from None
        finally:
            if last is not None:
                last.request_id, last.tries = call.request_id, retry.tries

    async def _hedged(self, call: Call, endpoint: int, deadline_s: float) -> tuple[Answer, str]:
        """Send a request, and a second one elsewhere when the first is slow; the first good answer wins."""
        delay_s, begun_s = self._hedging.begin(), time.monotonic()
        if delay_s is None:
            answer = await self._send(call, endpoint, deadline_s)
            self._hedging.observe(time.monotonic() - begun_s)
            return answer
        first = asyncio.ensure_future(self._send(call, endpoint, deadline_s))
        flying = {first}
        try:
            await asyncio.wait(flying, timeout=delay_s)
            if not first.done() and self._hedging.allow():
                self.counts.hedges += 1
                other = self.endpoints.pick(avoid=endpoint)
                flying.add(asyncio.ensure_future(self._send(call, other, deadline_s)))
            winner = await _first_good(flying)
            if winner is not first:
                self.counts.hedges_won += 1
            answer = winner.result()
            self._hedging.observe(time.monotonic() - begun_s)
            return answer
        finally:
            for loser in flying:
                loser.cancel()

    async def _send(self, call: Call, endpoint: int, deadline_s: float) -> tuple[Answer, str]:
        """One request to one endpoint; what comes of it is noted in the endpoint's health."""
        pool, health = self._pools[endpoint], self.endpoints.health[endpoint]
        left_ms = (deadline_s - time.monotonic()) * 1e3
        if left_ms < LEAST_MS:
            raise DeadlineExceeded("no time is left to send the request", endpoint=pool.address.url)
        self.counts.sent += 1
        health.outstanding += 1
        try:
            answer = await pool.exchange(call.to_bytes(pool.address, left_ms))
            calls.check(answer, pool.address.url)
        except (Unreachable, ServerFailed):
            self.endpoints.failed(endpoint, time.monotonic())
            raise
        except ClientError:
            self.endpoints.worked(endpoint)
            raise
        except asyncio.CancelledError:
            if time.monotonic() >= deadline_s - _CLOCK_S:  # not a lost hedge: it never answered
                self.endpoints.failed(endpoint, time.monotonic())
            raise
        finally:
            health.outstanding -= 1
        self.endpoints.worked(endpoint)
        return answer, pool.address.url

    def _probe_ejected(self) -> None:
        for endpoint in self.endpoints.due_for_probe(time.monotonic()):
            task = asyncio.ensure_future(self._probe(endpoint))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)

    async def _probe(self, endpoint: int) -> None:
        pool, ready = self._pools[endpoint], False
        call = calls.make("GET", "/v2/health/ready", headers=self._headers)
        try:
            async with asyncio.timeout(PROBE_S):
                ready = (await pool.exchange(call.to_bytes(pool.address, PROBE_S * 1e3))).status == 200
        except (ClientError, TimeoutError):
            pass
        finally:
            self.endpoints.probed(endpoint, ready, time.monotonic())


async def _first_good(
    flying: set["asyncio.Task[tuple[Answer, str]]"],
) -> "asyncio.Task[tuple[Answer, str]]":
    """The first of them that ends without an error; the last one to end when all fail."""
    pending = set(flying)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        good = [task for task in done if task.exception() is None]
        if good or not pending:
            return (good or list(done))[0]
