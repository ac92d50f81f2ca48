"""Series under the names of other systems, where they mean the same: `nv_inference_*` of Triton."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


class _Totals(NamedTuple):
    """What the server's own series have of one model, whichever version it was."""

    batches: float = 0.0
    rows: float = 0.0
    turned_away: float = 0.0


class NvInference(Collector):
    """Keeps per-request sums as requests are answered, and shows them when Prometheus asks.

    Of the versions, the one that serves and the one before it are shown; batches only of the one that serves.
    """

    def __init__(self, metrics: Metrics, version: str) -> None:
        self._metrics = metrics
        self._version = version
        self._sums: dict[str, defaultdict[str, _Sums]] = {version: defaultdict(_Sums)}
        """By version and model."""
        self._before: dict[str, _Totals] = {}
        metrics.registry.register(self)

    def adopt(self, version: str) -> None:
        """Count for another version from now on; the same one, loaded anew, counts on."""
        if version == self._version:
            return
        self._before = {model: self._totals(model) for sums in self._sums.values() for model in sums}
        self._sums = {self._version: self._sums[self._version], version: defaultdict(_Sums)}
        self._version = version

    def observe(self, finished: Finished) -> None:
        """Count one request that was in a model's queue."""
        version = finished.version or self._version
        if finished.job is None or version not in self._sums:
            return
        sums, result = self._sums[version][finished.program], finished.result
        if result is None or finished.response.status != 200:
            sums.failures[_reason(finished.response.status)] += 1
            return
        sums.success += 1
        sums.request_us += (finished.ended_s - finished.request.arrived_s) * 1e6
        sums.queue_us += result.queue_s * 1e6
        sums.compute_us += result.compute_s * 1e6

    def collect(self) -> Iterator[Metric]:
        """The series, each by model and version."""
        found = [(version, *item) for version, sums in self._sums.items() for item in sums.items()]
        failures = _series("request_failure", "Requests that failed.")
        for version, model, sums in found:
            for reason, count in self._failures(version, model, sums).items():
                _add(failures, count, version, model=model, reason=reason)
        yield failures
        for name, text, value_of in _OF_REQUESTS:
            series = _series(name, text)
            for version, model, sums in found:
                _add(series, value_of(sums), version, model=model)
            yield series
        batches, rows = _series("exec_count", "Batches run."), _series("count", "Rows run.")
        for model in self._sums[self._version]:
            totals = self._since(model)
            _add(batches, totals.batches, self._version, model=model)
            _add(rows, totals.rows, self._version, model=model)
        yield batches
        yield rows
        pending = _series("pending_request_count", "Requests queued or running.")
        _add(pending, self._metrics.in_flight._value.get(), self._version)
        yield pending

    def _failures(self, version: str, model: str, sums: _Sums) -> dict[str, int]:
        """Those that were queued, and those turned away before."""
        found = dict(sums.failures)
        if version == self._version:
            totals = self._since(model)
            if totals.turned_away:
                found["REJECTED"] = found.get("REJECTED", 0) + int(totals.turned_away)
        return found

    def _since(self, model: str) -> _Totals:
        """What there is of a model since its version serves."""
        before, now = self._before.get(model, _Totals()), self._totals(model)
        return _Totals(
            now.batches - before.batches, now.rows - before.rows, now.turned_away - before.turned_away
        )

    def _totals(self, model: str) -> _Totals:
        batches = sum(_values(self._metrics.batch_rows, "_count", model))
        rows = sum(_values(self._metrics.batch_rows, "_sum", model))
        refused = [s for s in _samples(self._metrics.refused, "_total") if s.labels["model"] == model]
        away = sum(s.value for s in refused if s.labels["reason"] != "late")
        return _Totals(batches, rows, away)


_OF_REQUESTS: tuple[tuple[str, str, Callable[[_Sums], float]], ...] = (
    ("request_success", "Requests answered.", lambda sums: sums.success),
    ("request_duration_us", "From arrival to answer.", lambda sums: sums.request_us),
    ("queue_duration_us", "Requests' time in the queue.", lambda sums: sums.queue_us),
    ("compute_infer_duration_us", "Requests' time in the model.", lambda sums: sums.compute_us),
)


def _add(series: Metric, value: float, version: str, **labels: str) -> None:
    series.add_sample(series.name, {**labels, "version": version}, value)


def _values(series: Collector, suffix: str, model: str) -> list[float]:
    return [sample.value for sample in _samples(series, suffix) if sample.labels["model"] == model]


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
