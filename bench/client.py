"""What the Python client adds to a call, beside httpx2, and what hedging does to a tail.

One small JSON POST at a time to a server in a process of its own, on kept connections, contenders in turn. Then a
server that takes 30 ms longer for every 50th request, with hedging and without: p99 of a call.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping

import httpx2

from bench.harness import Figure, Options, interleave, main, ratio
from tests.services.injected import injected_server
from tests.services.scripted import BODY
from tradewind import client as tradewind_client

NAME = "client"
OPTIONS = tradewind_client.Options(deadline_ms=10_000)
HISTORY = ["1", "2"]


def measure(options: Options) -> Mapping[str, Figure]:
    """Median microseconds of a call, and p99 milliseconds against a server with a tail."""
    calls = 200 if options.quick else 2000
    with injected_server(answer=BODY.decode()) as server:
        contenders: dict[str, Callable[[], float]] = {
            "client": lambda: _client(server.url, calls, 0.0),
            "client_hedging": lambda: _client(server.url, calls, 0.05),
            "async_client": lambda: asyncio.run(_async_client(server.url, calls)),
            "httpx2": lambda: _httpx(server.url, calls),
            "httpx2_async": lambda: asyncio.run(_async_httpx(server.url, calls)),
        }
        measured = interleave(contenders, options.repeats)
    figures = {f"{name}_p50_us": Figure.of(values, "us") for name, values in measured.items()}
    figures["ratio_httpx2"] = ratio(measured["client"], measured["httpx2"])
    figures["ratio_httpx2_async"] = ratio(measured["async_client"], measured["httpx2_async"])
    return figures | _tails(options, calls)


def _tails(options: Options, calls: int) -> dict[str, Figure]:
    with injected_server(slow_every=50, slow_ms=30, answer=BODY.decode()) as server:
        tails = interleave(
            {
                "p99_without_hedging_ms": lambda: _client(server.url, calls, 0.0, 0.99) / 1e3,
                "p99_with_hedging_ms": lambda: _client(server.url, calls, 0.05, 0.99) / 1e3,
            },
            options.repeats,
        )
    return {name: Figure.of(values, "ms") for name, values in tails.items()}


def _client(url: str, calls: int, hedge_share: float, quantile: float = 0.5) -> float:
    with tradewind_client.Client(url, OPTIONS._replace(hedge_share=hedge_share)) as client:
        return _quantile([_timed(lambda: client.recommend(HISTORY)) for _ in range(calls)], quantile)


async def _async_client(url: str, calls: int) -> float:
    async with tradewind_client.AsyncClient(url, OPTIONS._replace(hedge_share=0.0)) as client:
        times = []
        for _ in range(calls):
            begun = time.perf_counter()
            await client.recommend(HISTORY)
            times.append(time.perf_counter() - begun)
        return _quantile(times, 0.5)


def _httpx(url: str, calls: int) -> float:
    with httpx2.Client(trust_env=False) as client:
        post = lambda: client.post(f"{url}/v1/recommend", json={"history": HISTORY}).json()  # noqa: E731
        return _quantile([_timed(post) for _ in range(calls)], 0.5)


async def _async_httpx(url: str, calls: int) -> float:
    async with httpx2.AsyncClient(trust_env=False) as client:
        times = []
        for _ in range(calls):
            begun = time.perf_counter()
            (await client.post(f"{url}/v1/recommend", json={"history": HISTORY})).json()
            times.append(time.perf_counter() - begun)
        return _quantile(times, 0.5)


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _quantile(seconds: list[float], q: float) -> float:
    """In microseconds."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[round(q * 100) - 1] * 1e6


if __name__ == "__main__":
    main(NAME, measure, packages=("httpx2", "httptools", "uvloop"))
