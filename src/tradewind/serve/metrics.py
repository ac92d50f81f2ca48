"""What Prometheus may ask: base units, histogram buckets around the SLO."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Summary,
    disable_created_metrics,
    generate_latest,
)

from tradewind.retrieve.recall import Recall
from tradewind.serve.caller import ANYBODY, Caller
from tradewind.serve.series import Counts, Histograms

# A second series beside each, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]
SLO_MULTIPLES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 4.0, 10.0, 40.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All series of one server, in a registry of its own."""

    def __init__(self, slo_s: float, classes: Sequence[str] = ("normal",)) -> None:
        self._classes = tuple(classes)
        self.registry = CollectorRegistry()
        self._around_slo = tuple(slo_s * m for m in SLO_MULTIPLES)
        self.requests = Counts("tradewind_requests", "Requests answered.", ("route", "code"), self.registry)
        self.in_deadline = Counts(
            "tradewind_requests_in_deadline",
            "Requests answered with 200 inside their deadline.",
            ("route",),
            self.registry,
        )
        self.seconds = self._seconds(
            "tradewind_request_duration_seconds", "From a request's last byte to its answer.", "route"
        )
        self.refused = self._counter(
            "tradewind_requests_refused",
            "Requests refused for want of time: at the door, unread; by admission; late, in the queue; for their share.",
            "model",
            "reason",
            "priority",
        )
        self.tenant_refused = self._counter(
            "tradewind_tenant_requests_refused", "The same, by tenant.", "priority", "tenant"
        )
        self.tenant_seconds = self._counter(
            "tradewind_tenant_model_seconds", "Seconds of model time that were used.", "priority", "tenant"
        )
        self.level_requests = self._counter(
            "tradewind_level_requests", "Requests answered at a quality level.", "model", "level"
        )
        self.quality_lost = Summary(
            "tradewind_quality_lost",
            "How much worse a degraded answer was than the full one, 0 to 1, for answers that were made again.",
            ["model", "level"],
            registry=self.registry,
        )
        self.recall, self.recall_low, self.recall_high = (
            self._gauge(f"tradewind_retrieval_recall{end}", text, "plan", "allowed")
            for end, text in (
                (
                    "",
                    "Share of the best items that a search finds, by plan and share of items that its filter holds.",
                ),
                ("_low", "Lower end of its 95% interval."),
                ("_high", "Upper end of its 95% interval."),
            )
        )
        self.searches_audited = self._counter(
            "tradewind_retrieval_audits", "Searches done again exactly, to measure recall.", "plan"
        )
        self.corrections = self._counter(
            "tradewind_retrieval_corrections", "Times a plan was made to look at more.", "plan"
        )
        self.retried = self._counter(
            "tradewind_requests_retried", "Requests run again after a worker died.", "model"
        )
        self.queue_seconds = self._seconds("tradewind_queue_duration_seconds", "In the queue.", "model")
        self.batch_seconds = self._seconds("tradewind_batch_duration_seconds", "One batch.", "model")
        self.batch_rows = Histograms(
            "tradewind_batch_rows", "Rows in a batch.", "model", BATCH_BUCKETS, self.registry
        )
        self.in_flight = self._gauge("tradewind_requests_in_flight", "Requests queued or running.")
        self.connections = self._gauge("tradewind_connections", "Open client connections.")
        self.workers = self._gauge("tradewind_workers", "Model workers loaded and alive.")
        self.placed = self._gauge(
            "tradewind_workers_placed", "The same, by where they run.", "device", "cpus", "threads"
        )
        self.restarts = self._counter("tradewind_worker_restarts", "Model workers replaced.")
        self.profile = self._gauge(
            "tradewind_profile_seconds", "Expected seconds of a batch.", "model", "rows"
        )
        self.compiled = self._gauge(
            "tradewind_program_compiled",
            "1 for a program that runs compiled, 0 for one that runs eagerly.",
            "model",
            "program",
        )
        self.version = self._gauge(
            "tradewind_version_info", "1 for the model version that answers.", "version"
        )
        self.version_changes = self._counter(
            "tradewind_version_changes", "Times the alias moved: switched, or failed to load.", "outcome"
        )
        self._of: Callable[..., Any] = cache(lambda series, *labels: series.labels(*labels))
        """A child by its labels; the client library's own look-up costs as much as parsing a request."""

    def observe_request(self, route: str, code: int, seconds: float, in_deadline: bool) -> None:
        self.requests.inc(route, code)
        self.seconds.of(route).observe(seconds)
        if in_deadline:
            self.in_deadline.inc(route)

    def observe_refusal(self, model: str, reason: str, caller: Caller = ANYBODY) -> None:
        name = self._classes[caller.priority]
        self._of(self.refused, model, reason, name).inc()
        self._of(self.tenant_refused, name, caller.tenant).inc()

    def observe_use(self, caller: Caller, seconds: float) -> None:
        self._of(self.tenant_seconds, self._classes[caller.priority], caller.tenant).inc(seconds)

    def observe_level(self, model: str, level: str, count: int = 1) -> None:
        self._of(self.level_requests, model, level).inc(count)

    def observe_lost(self, model: str, level: str, lost: float) -> None:
        self._of(self.quality_lost, model, level).observe(lost)

    def observe_recall(self, recall: Recall, corrected: bool) -> None:
        for series, value in (
            (self.recall, recall.mean),
            (self.recall_low, recall.low),
            (self.recall_high, recall.high),
        ):
            self._of(series, recall.plan, f"{recall.band:g}").set(value)
        self._of(self.searches_audited, recall.plan).inc()
        self._of(self.corrections, recall.plan).inc(corrected)

    def observe_batch(self, model: str, rows: int, seconds: float) -> None:
        self.batch_rows.of(model).observe(rows)
        self.batch_seconds.of(model).observe(seconds)

    def observe_places(self, places: Iterable[Mapping[str, str]]) -> None:
        self.workers.set(0)
        self.placed.clear()
        for place in places:
            self.workers.inc()
            self.placed.labels(**place).inc()

    def observe_version(self, version: str) -> None:
        """Name the version that answers from now on; what was expected of the one before is not expected of it."""
        self.version.clear()
        self.version.labels(version).set(1)
        self.profile.clear()
        self.compiled.clear()

    def render(self) -> bytes:
        """Return the exposition format, version 0.0.4."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, label: str) -> Histograms:
        return Histograms(name, f"Seconds: {text}", label, self._around_slo, self.registry)
