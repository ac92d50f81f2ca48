"""What Prometheus may ask: base units, histogram buckets around the SLO."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SLO_MULTIPLES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 4.0, 10.0, 40.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All series of one server, in a registry of its own."""

    def __init__(self, slo_s: float) -> None:
        self.registry = CollectorRegistry()
        around = tuple(slo_s * m for m in SLO_MULTIPLES)

        self.requests = Counter(
            "tradewind_requests",
            "Requests answered, by status code.",
            ["route", "code"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "tradewind_request_duration_seconds",
            "Seconds from the request's last byte to the answer.",
            ["route"],
            buckets=around,
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "tradewind_queue_duration_seconds",
            "Seconds in the queue.",
            ["route"],
            buckets=around,
            registry=self.registry,
        )
        self.in_deadline = Counter(
            "tradewind_requests_in_deadline",
            "Requests answered with 200 inside their deadline.",
            ["route"],
            registry=self.registry,
        )
        self.refused = Counter(
            "tradewind_requests_refused",
            "Requests refused: they could not be in time.",
            ["model", "reason"],
            registry=self.registry,
        )
        self.retried = Counter(
            "tradewind_requests_retried",
            "Requests run again after a worker died.",
            ["model"],
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "tradewind_batch_duration_seconds",
            "Seconds one batch took.",
            ["model"],
            buckets=around,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "tradewind_batch_rows",
            "Rows in a batch.",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tradewind_requests_in_flight", "Requests not yet answered.", registry=self.registry
        )
        self.workers = Gauge("tradewind_workers", "Model workers loaded and alive.", registry=self.registry)
        self.restarts = Counter(
            "tradewind_worker_restarts", "Model workers replaced.", registry=self.registry
        )
        self.profile = Gauge(
            "tradewind_profile_seconds",
            "Expected seconds of a batch.",
            ["model", "rows"],
            registry=self.registry,
        )

    def observe_request(self, route: str, code: int, seconds: float) -> None:
        self.requests.labels(route, str(code)).inc()
        self.seconds.labels(route).observe(seconds)

    def observe_batch(self, model: str, rows: int, seconds: float) -> None:
        self.batch_rows.labels(model).observe(rows)
        self.batch_seconds.labels(model).observe(seconds)

    def render(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)
