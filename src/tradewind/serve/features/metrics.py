"""What is counted of fetches, and the one log line in a while about documents that are none."""

import time
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from tradewind.serve.features.base import Fetched, Outcome
from tradewind.serve.series import Counts, Histograms

SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25)
USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SELDOM_S = 10.0
"""Between two lines about malformed documents."""

log = structlog.get_logger()


class FeatureMetrics:
    """The series of one server's feature store, which only a server that has one shows."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetches = Counts("tradewind_features_fetches", "Fetches of a user.", ("outcome",), registry)
        self._seconds = Histograms(
            "tradewind_features_fetch_duration_seconds", "Seconds: one fetch.", "outcome", SECONDS, registry
        )
        self._users = Histograms(
            "tradewind_features_batch_users", "Users asked for in one round trip.", "store", USERS, registry
        )
        self.down = Gauge(
            "tradewind_features_down", "1 while the store is known not to answer.", registry=registry
        )
        self.waiting = Gauge(
            "tradewind_features_waiting", "Requests that wait for their user.", registry=registry
        )
        self.probes = Counter(
            "tradewind_features_probes", "Looks whether the store answers again.", registry=registry
        )
        self._dropped = Counter(
            "tradewind_features_items_dropped",
            "Items of stored histories that the model does not know.",
            registry=registry,
        )
        self._clock = clock
        self._said_s = -SELDOM_S
        self._unsaid = 0

    def observe(self, fetched: Fetched) -> None:
        """Count one fetch."""
        self._fetches.inc(fetched.outcome)
        self._seconds.of(fetched.outcome).observe(fetched.seconds)

    def observe_batch(self, store: str, users: int) -> None:
        """Count one round trip."""
        self._users.of(store).observe(users)

    def observe_dropped(self, items: int) -> None:
        """Count items that were left out of a history."""
        if items:
            self._dropped.inc(items)

    def malformed(self, why: str) -> None:
        """Say it, but not every time; what the document holds is not said."""
        now = self._clock()
        if now - self._said_s < SELDOM_S:
            self._unsaid += 1
            return
        log.warning("malformed features", outcome=Outcome.MALFORMED, why=why, more=self._unsaid)
        self._said_s, self._unsaid = now, 0
