"""A store that answers when it is told to, and says what it was asked."""

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from tradewind.serve.features.base import StoreDown


class ScriptedStore:
    """Each round trip is a future in `asked`, with the users that it is for in `users`."""

    def __init__(self) -> None:
        self.users: list[list[str]] = []
        self.asked: asyncio.Queue[asyncio.Future[Sequence[bytes | None]]] = asyncio.Queue()
        self.down: StoreDown | None = None
        self.num_checks = 0
        self.closed = False

    async def get(self, users: Sequence[str]) -> Sequence[bytes | None]:
        self.users.append(list(users))
        future: asyncio.Future[Sequence[bytes | None]] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(future)
        return await future

    async def check(self) -> None:
        self.num_checks += 1
        if self.down is not None:
            raise self.down

    async def close(self) -> None:
        self.closed = True


class Pauses:
    """In place of sleeping: each pause ends when the test says so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun.put_nowait(future)
        await future


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Samples by name without `tradewind_features_`, and with the value of a label behind it."""
    found = {}
    for metric in registry.collect():
        for sample in metric.samples:
            labels = [value for name, value in sample.labels.items() if name != "le"]
            if "le" not in sample.labels:
                found[" ".join([sample.name.removeprefix("tradewind_features_"), *labels])] = sample.value
    return found
