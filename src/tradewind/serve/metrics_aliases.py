"""Series under the names of other systems, where they mean the same: `nv_inference_*` of Triton."""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from tradewind.serve.metrics import Metrics
from tradewind.serve.watch import Finished

CANCELED = 499
REJECTED = (429, 503)


class _Sums:
    """What Triton accumulates of one model's answered requests, in microseconds."""

    def __init__(self) -> None:
        self.success = 0
        self.request_us = self.queue_us = self.compute_us = 0.0
        self.failures: defaultdict[str, int] = defaultdict(int)


class NvInference(Collector):
    """Keeps per-request sums as requests are answered, and shows them when Prometheus asks."""

    def __init__(self, metrics: Metrics, version: str) -> None:
        self._metrics = metrics
        self._version = version
        self._models: defaultdict[str, _Sums] = defaultdict(_Sums)
        metrics.registry.register(self)

    def observe(self, finished: Finished) -> None:
        """Count one request that was in a model's queue."""
        if finished.job is None:
            return
        sums, result = self._models[finished.program], finished.result
        if result is None or finished.response.status != 200:
            sums.failures[_reason(finished.response.status)] += 1
            return
        sums.success += 1
        sums.request_us += (finished.ended_s - finished.request.arrived_s) * 1e6
        sums.queue_us += result.queue_s * 1e6
        sums.compute_us += result.compute_s * 1e6

    def collect(self) -> Iterator[Metric]:
        """The series, each by model and version."""
        models = self._models.items()
        failures = _series("request_failure", "Requests that failed.")
        for model, sums in models:
            for reason, count in self._failures(model, sums).items():
                self._add(failures, count, model=model, reason=reason)
        yield failures
        for name, text, values in (
            ("request_success", "Requests answered.", {m: s.success for m, s in models}),
            ("request_duration_us", "From arrival to answer.", {m: s.request_us for m, s in models}),
            ("queue_duration_us", "Requests' time in the queue.", {m: s.queue_us for m, s in models}),
            (
                "compute_infer_duration_us",
                "Requests' time in the model.",
                {m: s.compute_us for m, s in models},
            ),
            ("exec_count", "Batches run.", self._rows("_count")),
            ("count", "Rows run.", self._rows("_sum")),
        ):
            series = _series(name, text)
            for model, value in values.items():
                self._add(series, value, model=model)
            yield series
        pending = _series("pending_request_count", "Requests queued or running.")
        self._add(pending, self._metrics.in_flight._value.get())
        yield pending

    def _add(self, series: Metric, value: float, **labels: str) -> None:
        series.add_sample(series.name, {**labels, "version": self._version}, value)

    def _failures(self, model: str, sums: _Sums) -> dict[str, int]:
        """Those that were queued, and those turned away before."""
        found = dict(sums.failures)
        for sample in _samples(self._metrics.refused, "_total"):
            if sample.labels["model"] == model and sample.labels["reason"] != "late":
                found["REJECTED"] = found.get("REJECTED", 0) + int(sample.value)
        return found

    def _rows(self, suffix: str) -> dict[str, float]:
        """By model, `_count` (batches) or `_sum` (rows) of what every batch observed."""
        found: defaultdict[str, float] = defaultdict(float)
        for sample in _samples(self._metrics.batch_rows, suffix):
            found[sample.labels["model"]] += sample.value
        return found


def _samples(series: Collector, suffix: str) -> Iterator[Sample]:
    for metric in series.collect():
        yield from (sample for sample in metric.samples if sample.name.endswith(suffix))


def _reason(status: int) -> str:
    if status in REJECTED:
        return "REJECTED"
    return "CANCELED" if status == CANCELED else "BACKEND"


def _series(name: str, text: str) -> Metric:
    """Untyped: a counter's name would have to end in `_total`, and Triton's do not."""
    return Metric(f"nv_inference_{name}", text, "unknown")
