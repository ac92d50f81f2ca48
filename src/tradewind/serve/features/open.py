"""The feature store of an endpoint: which source it is, by what its address begins with, and how long that may take."""

import asyncio
import pathlib
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from tradewind.serve.features.base import Fetched, Source
from tradewind.serve.features.metrics import FeatureMetrics
from tradewind.spec import FeatureSpec

SHORTEST_LIMIT_S = 0.05
LIMITS = 4.0
"""For so many times as long as a request waits, a round trip may go on: then the store is taken to be down."""


class FeatureStore:
    """Where an endpoint's users are fetched from, and its series.

    Raises SpecError where a file cannot be read, MissingExtraError without what speaks to the store.
    """

    def __init__(self, spec: FeatureSpec, registry: CollectorRegistry) -> None:
        self.metrics = FeatureMetrics(registry)
        self._source = SOURCES[spec.scheme](spec, self.metrics)
        self._max_s = spec.max_ms / 1e3
        self.start, self.close = self._source.start, self._source.close

    def fetch(self, user: str, until_s: float) -> Fetched | asyncio.Future[Fetched]:
        """Fetch a user as `Source.fetch` does, for as long as the endpoint allows."""
        return self._source.fetch(user, min(until_s, time.monotonic() + self._max_s))


def _embedded(spec: FeatureSpec, metrics: FeatureMetrics) -> Source:
    from tradewind.serve.features.embedded import Embedded

    return Embedded(pathlib.Path(spec.store), metrics)


def _redis(spec: FeatureSpec, metrics: FeatureMetrics) -> Source:
    from tradewind.serve.features.batches import Batches
    from tradewind.serve.features.redis import RedisStore

    limit_s = max(LIMITS * spec.max_ms / 1e3, SHORTEST_LIMIT_S)
    return Batches("redis", RedisStore(spec.store, spec.key), metrics, limit_s)


SOURCES: dict[str, Callable[[FeatureSpec, FeatureMetrics], Source]] = {
    "": _embedded,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}
"""By the scheme of the store's address, "" for a file: the same as `spec.features` names."""
