"""Spans of answered requests: their parents, their times, their links."""

import asyncio
import pathlib
from collections import Counter

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.serve.conftest import running
from tests.services.otlp import otlp_receiver
from tradewind.serve import tracing
from tradewind.serve.features import Fetched, Outcome
from tradewind.serve.http import Request, Response
from tradewind.serve.jobs import Job, Prepared, Result
from tradewind.serve.tracing import Tracer, from_environment
from tradewind.serve.watch import Finished

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def request(traceparent: str = "") -> Request:
    headers = {b"traceparent": traceparent.encode()} if traceparent else {}
    made = Request("POST", "/v1/recommend", headers, True)
    made.arrived_s = 10.0
    return made


def finished(queued_s: float, traceparent: str = "", status: int = 200) -> Finished:
    """A request of two rows that was in the batch from 10.5 to 10.75."""

    async def job() -> Job:
        return Job(Prepared({}, 2, 0), 12.0, queued_s)

    result = Result({}, 10.5 - queued_s, 0.25, 4) if status == 200 else None
    response = Response(status, b"", headers=(("x-request-id", "r1"),))
    return Finished(
        request(traceparent), "recommend", response, 10.8, "recommend", asyncio.run(job()), result
    )


def spans(*requests: Finished) -> list[ReadableSpan]:
    """What is exported for requests that are answered in one turn of the loop."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ends = []
    tracer = Tracer(provider, "m@1", ends.append)
    for one in requests:
        tracer.observe(one)
    for end in ends:
        end()
    provider.shutdown()
    return list(exporter.get_finished_spans())


def seconds(span: ReadableSpan) -> float:
    return (span.end_time - span.start_time) / 1e9


def test_a_request_has_a_queue_and_a_batch_whose_model_span_it_links() -> None:
    """Durations are those of the timings; queue and batch are children of the request's span."""
    by_name = {span.name: span for span in spans(finished(10.125))}
    top, queue, batch, model = (by_name[n] for n in ("POST /v1/recommend", "queue", "batch", "model"))
    assert {span.parent.span_id for span in (queue, batch)} == {top.context.span_id}
    lasted = {name: round(seconds(span), 6) for name, span in by_name.items()}
    assert lasted == {"POST /v1/recommend": 0.8, "queue": 0.375, "batch": 0.25, "model": 0.25}
    assert (queue.start_time - top.start_time) / 1e9 == pytest.approx(0.125, abs=1e-3)
    assert [link.context.span_id for link in batch.links] == [model.context.span_id]
    assert model.parent is None
    assert model.context.trace_id != top.context.trace_id
    assert top.attributes["http.response.status_code"] == 200
    assert top.attributes["tradewind.request_id"] == "r1"


def test_waiting_for_features_is_a_span_before_the_queue() -> None:
    """And what came of it an attribute of the request's; where nobody waited there is the attribute alone."""
    fetched = Fetched(Outcome.LATE, None, 0.0625, 10.03125)
    by_name = {span.name: span for span in spans(finished(10.125)._replace(fetched=fetched))}
    top, features = by_name["POST /v1/recommend"], by_name["features"]
    assert features.parent.span_id == top.context.span_id
    assert round(seconds(features), 6) == 0.0625
    assert (features.start_time - top.start_time) / 1e9 == pytest.approx(0.03125, abs=1e-3)
    assert top.attributes["tradewind.features"] == "late"
    found = spans(finished(10.125)._replace(fetched=Fetched(Outcome.DOWN)))
    assert "features" not in {span.name for span in found}
    assert {span.attributes.get("tradewind.features") for span in found} == {None, "down"}


def test_requests_of_one_batch_share_its_model_span() -> None:
    """Three requests, one execution, which links all three."""
    found = spans(finished(10.0), finished(10.25), finished(10.375))
    assert Counter(span.name for span in found)["model"] == 1
    model = next(span for span in found if span.name == "model")
    batches = {span.context.span_id for span in found if span.name == "batch"}
    assert {link.context.span_id for link in model.links} == batches
    assert len(batches) == 3


def test_the_callers_trace_goes_on() -> None:
    """A W3C traceparent is the parent; one that is none begins a new trace; an unsampled one records nothing."""
    (top,) = [span for span in spans(finished(10.0, f"00-{TRACE}-{PARENT}-01")) if span.kind.name == "SERVER"]
    assert (f"{top.context.trace_id:032x}", f"{top.parent.span_id:016x}") == (TRACE, PARENT)
    assert any(span.name == "queue" for span in spans(finished(10.0, "00-nonsense")))
    assert spans(finished(10.0, f"00-{TRACE}-{PARENT}-00")) == []


def test_failures_are_traced_without_parts() -> None:
    """A request that never ran has its span alone, marked as an error from 500 up."""
    for status, error in ((429, False), (500, True)):
        (span,) = spans(finished(10.0, status=status))
        assert (span.attributes["http.response.status_code"], not span.status.is_ok) == (status, error)
    assert spans(Finished(request(), "health", Response(200, b""), 10.1)) == []


def test_it_is_off_unless_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the standard variables, or with the SDK disabled, nothing is made."""
    assert from_environment("m@1") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert from_environment("m@1") is None
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert from_environment("m@1") is None


def test_a_missing_extra_is_said_and_serves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for but not installed: a warning with the command, no error."""
    warned = []
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace.export", None)
    monkeypatch.setattr(tracing.log, "warning", lambda event, **more: warned.append(more["why"]))
    assert from_environment("m@1") is None
    assert "tradewind[otel]" in warned[0]


def test_a_real_server_sends_its_spans_over_otlp(
    recommender: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request with a traceparent arrives at the collector as the caller's trace, under the service's name."""
    with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        with running(recommender, tmp_path, "--slo", "5s") as server:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
            answer = httpx2.post(f"{server.url}/v1/recommend", json={"history": ["i1"]}, headers=headers)
            assert answer.status_code == 200
            assert server.terminate() == 0
        assert {resource["service.name"] for resource in receiver.resources} == {"shop"}
        ours = {span.name for span in receiver.spans if span.trace_id.hex() == TRACE}
    assert ours == {"POST /v1/recommend", "queue", "batch"}
    assert "model" in {span.name for span in receiver.spans}
