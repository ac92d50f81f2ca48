"""What `/metrics` says, and that it agrees with the access log."""

import re

import httpx2
from prometheus_client.parser import text_string_to_metric_families

SERIES = {
    "tradewind_requests": ("counter", {"route", "code"}),
    "tradewind_requests_in_deadline": ("counter", {"route"}),
    "tradewind_requests_refused": ("counter", {"model", "reason", "priority"}),
    "tradewind_tenant_requests_refused": ("counter", {"priority", "tenant"}),
    "tradewind_tenant_model_seconds": ("counter", {"priority", "tenant"}),
    "tradewind_level_requests": ("counter", {"model", "level"}),
    "tradewind_quality_lost": ("summary", {"model", "level"}),
    "tradewind_retrieval_recall": ("gauge", {"plan", "allowed"}),
    "tradewind_retrieval_recall_low": ("gauge", {"plan", "allowed"}),
    "tradewind_retrieval_recall_high": ("gauge", {"plan", "allowed"}),
    "tradewind_retrieval_audits": ("counter", {"plan"}),
    "tradewind_retrieval_corrections": ("counter", {"plan"}),
    "tradewind_requests_retried": ("counter", {"model"}),
    "tradewind_request_duration_seconds": ("histogram", {"route"}),
    "tradewind_queue_duration_seconds": ("histogram", {"model"}),
    "tradewind_batch_duration_seconds": ("histogram", {"model"}),
    "tradewind_batch_rows": ("histogram", {"model"}),
    "tradewind_requests_in_flight": ("gauge", set()),
    "tradewind_connections": ("gauge", set()),
    "tradewind_workers": ("gauge", set()),
    "tradewind_workers_placed": ("gauge", {"device", "cpus", "threads"}),
    "tradewind_worker_restarts": ("counter", set()),
    "tradewind_profile_seconds": ("gauge", {"model", "rows"}),
    "tradewind_program_compiled": ("gauge", {"model", "program"}),
    "tradewind_version_info": ("gauge", {"version"}),
    "tradewind_version_changes": ("counter", {"outcome"}),
}
ALIASES = ("nv_inference_", "DCGM_")
"""Other systems' names for the same, which have tests of their own."""
BODY = {"inputs": [{"name": "ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}]}


def scrape(client: httpx2.Client, url: str) -> dict[tuple, float]:
    """Every sample: value by name and labels."""
    answer = client.get(url + "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    return {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}


def test_names_types_and_labels_are_these(client, generic_server):
    """A dashboard's contract: series come and go on purpose. Base units, as Prometheus asks for."""
    client.post(generic_server.url + "/v2/models/lookup/infer", json=BODY)
    shown = text_string_to_metric_families(client.get(generic_server.url + "/metrics").text)
    families = [family for family in shown if not family.name.startswith(ALIASES)]
    assert {f.name: f.type for f in families} == {name: kind for name, (kind, _) in SERIES.items()}
    for family in families:
        assert family.documentation
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels <= SERIES[family.name][1]
        assert not re.search("_(ms|milliseconds|mib|percent)", family.name)


def test_every_answer_is_counted_once(client, generic_server):
    """Good and bad ones, with their codes; good ones inside their deadline; batches and rows beside them."""
    infer = generic_server.url + "/v2/models/lookup/infer"
    before = scrape(client, generic_server.url)
    for _ in range(5):
        assert client.post(infer, json=BODY).status_code == 200
    assert client.post(infer, json={}).status_code == 400
    assert client.get(infer).status_code == 405
    assert client.get(generic_server.url + "/nothing").status_code == 404
    after = scrape(client, generic_server.url)

    def grew(name: str, **labels: str) -> float:
        key = (name, *sorted(labels.items()))
        return after[key] - before.get(key, 0.0)

    assert grew("tradewind_requests_total", route="infer", code="200") == 5
    assert grew("tradewind_requests_total", route="infer", code="400") == 1
    assert grew("tradewind_requests_total", route="none", code="405") == 1
    assert grew("tradewind_requests_total", route="none", code="404") == 1
    assert grew("tradewind_requests_in_deadline_total", route="infer") == 5
    assert grew("tradewind_request_duration_seconds_count", route="infer") == 6
    assert grew("tradewind_batch_rows_sum", model="lookup") == 5
    assert grew("tradewind_batch_duration_seconds_count", model="lookup") == 5
    assert grew("tradewind_queue_duration_seconds_count", model="lookup") == 5


def test_gauges_say_what_is_there(client, generic_server):
    """Workers, connections and the profile of every program and batch size; nothing in flight at rest."""
    samples = scrape(client, generic_server.url)
    assert samples[("tradewind_workers",)] >= 1
    placed = {k: v for k, v in samples.items() if k[0] == "tradewind_workers_placed"}
    assert sum(placed.values()) == samples[("tradewind_workers",)]
    assert {dict(k[1:])["device"] for k in placed} == {"cpu"}
    assert samples[("tradewind_connections",)] >= 1
    assert samples[("tradewind_requests_in_flight",)] == 0
    rows = {dict(k[1:])["rows"] for k in samples if k[0] == "tradewind_profile_seconds"}
    assert rows == {"1", "2", "4", "8", "16", "32", "64"}


def test_a_request_is_found_in_the_log_by_its_id(client, generic_server):
    """The client's id is echoed and logged with route and code; without one the server makes one up."""
    infer = generic_server.url + "/v2/models/lookup/infer"
    stated = client.post(infer, json=BODY, headers={"x-request-id": "order-66"})
    refused = client.post(infer, json={}, headers={"x-request-id": "order-67"})
    made_up = client.post(infer, json=BODY)
    assert stated.headers["x-request-id"] == "order-66"
    logged = {line.get("request_id"): line for line in generic_server.lines}
    assert (logged["order-66"]["route"], logged["order-66"]["code"]) == ("infer", 200)
    assert logged["order-67"]["code"] == 400
    assert refused.json()["error"] in logged["order-67"]["error"]
    assert logged[made_up.headers["x-request-id"]]["code"] == 200


def test_ids_that_would_break_a_log_line_are_replaced(client, generic_server):
    """Too long is cut; what is not printable ASCII is not echoed."""
    url = generic_server.url + "/v2/health/live"
    assert client.get(url, headers={"x-request-id": "a" * 500}).headers["x-request-id"] == "a" * 128
    strange = client.get(url, headers={"x-request-id": "caf\xe9".encode("latin-1")})
    assert strange.headers["x-request-id"].isascii()
