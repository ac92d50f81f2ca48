"""Triton's names and meanings for what this server counts."""

import asyncio

import pytest
from prometheus_client import generate_latest

from tradewind.serve.http import Request, Response
from tradewind.serve.jobs import Job, Prepared, Result
from tradewind.serve.metrics import Metrics
from tradewind.serve.metrics_aliases import NvInference
from tradewind.serve.watch import Finished


def finished(status: int, result: Result | None) -> Finished:
    async def job() -> Job:
        return Job(Prepared({}, 2, 0), 12.0, 10.0)

    request = Request("POST", "/v2/models/m/infer", {}, True)
    request.arrived_s = 10.0
    return Finished(request, "infer", Response(status, b""), 10.5, "m", asyncio.run(job()), result)


def values(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_two_requests_of_one_batch_are_one_execution_and_twice_its_time() -> None:
    """As Triton counts: durations are sums over requests, executions are batches, `count` is rows."""
    metrics = Metrics(0.05)
    aliases = NvInference(metrics, "3")
    for _ in range(2):
        aliases.observe(finished(200, Result({}, 0.125, 0.25, 4)))
    metrics.observe_batch("m", 4, 0.25)
    found, labels = values(metrics), '{model="m",version="3"}'
    expected = {
        "request_success": 2, "request_duration_us": 1e6, "queue_duration_us": 250_000,
        "compute_infer_duration_us": 500_000, "exec_count": 1, "count": 4,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[f"nv_inference_{name}{labels}"] == pytest.approx(value), name


def test_failures_have_tritons_reasons() -> None:
    """Refused before or in the queue, left by the client, failed in the model."""
    metrics = Metrics(0.05)
    aliases = NvInference(metrics, "3")
    for status in (429, 503, 499, 422):
        aliases.observe(finished(status, None))
    metrics.observe_refusal("m", "admission")
    metrics.observe_refusal("m", "late")  # it was queued: observed as 429 above
    found = values(metrics)
    prefix = 'nv_inference_request_failure{model="m",reason='
    counted = {name.split('"')[3]: value for name, value in found.items() if name.startswith(prefix)}
    assert counted == {"REJECTED": 3, "CANCELED": 1, "BACKEND": 1}


def test_each_version_has_its_own_counts() -> None:
    """Requests of the version before go on being counted as its own; batches and rows are those of the new one."""
    metrics = Metrics(0.05)
    aliases, one = NvInference(metrics, "3"), Result({}, 0.125, 0.25, 1)
    aliases.observe(finished(200, one)._replace(version="3"))
    metrics.observe_batch("m", 1, 0.25)
    metrics.observe_refusal("m", "admission")
    aliases.adopt("4")
    for version in ("3", "4", "4"):
        aliases.observe(finished(200, one)._replace(version=version))
        metrics.observe_batch("m", 2, 0.25)
    found = values(metrics)
    success = {key: value for key, value in found.items() if key.startswith("nv_inference_request_success")}
    assert list(success.values()) == [2, 2]
    assert found['nv_inference_exec_count{model="m",version="4"}'] == 3
    assert found['nv_inference_count{model="m",version="4"}'] == 6
    assert not [key for key in found if key.startswith("nv_inference_request_failure")]
    aliases.adopt("5")
    assert 'version="3"' not in "".join(values(metrics))
