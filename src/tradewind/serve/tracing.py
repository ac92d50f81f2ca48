"""OpenTelemetry spans of requests, made from their timings once they are answered.

A request's span has two children: `queue`, and `batch` from when its batch began to when it was back; before them
`features`, where it waited for its user. Every batch is one `model` span in a trace of its own, linked with the `batch`
spans of all its requests. Off unless the standard variables name an OTLP endpoint, and then nothing is done before the
answer is on its way.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from tradewind import __version__, names
from tradewind.serve.watch import Finished, Watcher

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = structlog.get_logger()
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACED = ("infer", "recommend")
Later = Callable[[Callable[[], None]], object]


def from_environment(model: str) -> Watcher | None:
    """What traces requests, by the standard `OTEL_*` variables; None where none names an OTLP endpoint."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp" or not any(map(os.environ.get, ENDPOINTS)):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("not tracing", why="OTEL_* asks for it; run `pip install 'tradewind[otel]'`")
        return None
    service = os.environ.get("OTEL_SERVICE_NAME", "tradewind")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider, model).observe


class Tracer:
    """Makes the spans of one replica's requests."""

    def __init__(self, provider: "TracerProvider", model: str, later: Later | None = None) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("tradewind.serve", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._model = model
        self._later = later or (lambda call: asyncio.get_running_loop().call_soon(call))
        self._batches: dict[tuple[str, float, float], Span] = {}
        """The `model` spans of batches whose requests are being answered."""

    def observe(self, finished: Finished) -> None:
        """Make the spans of one answered request."""
        from opentelemetry import trace

        if finished.route not in TRACED:
            return
        request, response = finished.request, finished.response
        to_ns = _clock()
        span = self._tracer.start_span(
            f"{request.method} {request.path}",
            self._parent(finished),
            kind=trace.SpanKind.SERVER,
            start_time=to_ns(request.arrived_s),
        )
        if span.is_recording():
            span.set_attributes(self._describe(finished))
            if response.status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            self._parts(finished, trace.set_span_in_context(span), to_ns)
        span.end(to_ns(finished.ended_s))

    def _parent(self, finished: Finished) -> "Context":
        carrier = {}
        for name in ("traceparent", "tracestate"):
            value = finished.request.header(name.encode())
            if value is not None:
                carrier[name] = value
        return self._extract(carrier)

    def _describe(self, finished: Finished) -> dict[str, Any]:
        request, response = finished.request, finished.response
        attributes: dict[str, Any] = {
            "http.request.method": request.method,
            "url.path": request.path,
            "http.route": finished.route,
            "http.response.status_code": response.status,
            "tradewind.model": self._model,
            "tradewind.request_id": dict(response.headers).get(names.HEADER_REQUEST_ID, ""),
        }
        if finished.fetched is not None:
            attributes["tradewind.features"] = str(finished.fetched.outcome)
        if finished.job is not None:
            attributes["tradewind.deadline_ms"] = (finished.job.deadline_s - request.arrived_s) * 1e3
            attributes["tradewind.tries"] = finished.job.tries
        return attributes

    def _parts(self, finished: Finished, parent: "Context", to_ns: Callable[[float], int]) -> None:
        job, result, fetched = finished.job, finished.result, finished.fetched
        if fetched is not None and fetched.seconds:
            waited = self._tracer.start_span("features", parent, start_time=to_ns(fetched.asked_s))
            waited.end(to_ns(fetched.asked_s + fetched.seconds))
        if job is None or result is None:
            return
        begin_s = job.queued_s + result.queue_s
        end_s = begin_s + result.compute_s
        queue = self._tracer.start_span("queue", parent, start_time=to_ns(job.queued_s))
        queue.end(to_ns(begin_s))
        key = (finished.program, round(begin_s, 6), result.compute_s)
        model = self._batches.get(key) or self._begin_model(
            key, result.batch_rows, to_ns(begin_s), to_ns(end_s)
        )
        batch = self._tracer.start_span("batch", parent, start_time=to_ns(begin_s))
        batch.set_attributes({"tradewind.batch_rows": result.batch_rows, "tradewind.rows": job.rows})
        batch.add_link(model.get_span_context())
        model.add_link(batch.get_span_context())
        batch.end(to_ns(end_s))

    def _begin_model(self, key: tuple[str, float, float], rows: int, begin_ns: int, end_ns: int) -> "Span":
        """The span of a batch; it ends once all of the batch's requests have been answered, in this turn of the loop."""
        from opentelemetry.context import Context

        span = self._tracer.start_span("model", Context(), start_time=begin_ns)
        span.set_attributes(
            {"tradewind.program": key[0], "tradewind.batch_rows": rows, "tradewind.model": self._model}
        )
        self._batches[key] = span

        def end() -> None:
            del self._batches[key]
            span.end(end_ns)

        self._later(end)
        return span


def _clock() -> Callable[[float], int]:
    """From the monotonic clock's seconds to the wall clock's nanoseconds, as they stand now."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    return lambda seconds: round(seconds * 1e9) + offset_ns
