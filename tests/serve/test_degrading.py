"""Levels, classes and tenants of a real server process; overload is made by stopping its workers."""

import json
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.serve.conftest import COMMAND, POPULAR, running
from tests.serve.test_metrics import scrape
from tests.serve.test_server import stopped, until_in_flight

RECOMMEND, TOTAL = "/v1/recommend", "/v2/models/total/infer"
NUMBER = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}


def test_an_answer_says_its_level(client, recommend_server):
    """In the body and in the header; without pressure it is the best."""
    answer = client.post(recommend_server.url + RECOMMEND, json={"history": ["i1"]})
    assert answer.json()["level"] == answer.headers["x-level"] == "rank-20"


@pytest.mark.parametrize("where", ["body", "header", "parameter"])
def test_a_level_that_there_is_not_is_refused(client, recommend_server, where):
    """400 with the names of those that there are, on every way to state one."""
    body, headers, path = {"history": ["i1"]}, {}, RECOMMEND
    if where == "body":
        body["min_level"] = "best"
    elif where == "header":
        headers["x-min-level"] = "best"
    else:
        history = {"name": "history", "shape": [1, 1], "datatype": "BYTES", "data": ["i1"]}
        body, path = (
            {"inputs": [history], "parameters": {"min_level": "best"}},
            "/v2/models/recommender/infer",
        )
    answer = client.post(recommend_server.url + path, json=body, headers=headers)
    assert answer.status_code == 400
    assert "rank-20, rank-14, rank-10, retrieve-20, popular" in answer.json()["error"]


def test_while_no_worker_answers_the_popular_list_does(client, recommender, tmp_path):
    """In time, without what the user has seen; who does not accept it is refused; v2 gets it as tensors."""
    ask = {"history": [f"i{POPULAR[0]}"], "k": 2}
    history = {"name": "history", "shape": [1, 1], "datatype": "BYTES", "data": ["i1"]}
    with running(recommender, tmp_path, "--slo", "4s") as server, ThreadPoolExecutor(4) as pool:

        def post(path: str, body: dict, **headers: str) -> httpx2.Response:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return httpx2.post(server.url + path, json=body, headers=names, timeout=60, trust_env=False)

        with stopped(client, server):
            first = pool.submit(post, RECOMMEND, ask, x_deadline_ms="60000")
            until_in_flight(client, server, 1)
            degraded = pool.submit(post, RECOMMEND, ask)
            tensors = pool.submit(post, "/v2/models/recommender/infer", {"inputs": [history]})
            choosy = pool.submit(post, RECOMMEND, ask | {"min_level": "retrieve-40"})
            refused = choosy.result()
            assert (degraded.result().status_code, refused.status_code) == (200, 429)
            assert degraded.result().headers["x-level"] == "popular"
            body = degraded.result().json()
            assert body["level"] == "popular"
            assert [item["item"] for item in body["items"]] == [f"i{p}" for p in POPULAR[1:]]
            assert tensors.result().headers["x-level"] == "popular"
            outputs = {o["name"]: o["data"] for o in tensors.result().json()["outputs"]}
            assert outputs["items"][:3] == [f"i{p}" for p in POPULAR]
        assert first.result().json()["level"] == "rank-40"
        samples = scrape(client, server.url)
    level = ("tradewind_level_requests_total", ("level", "popular"), ("model", "recommend"))
    assert samples[level] == 2
    late = ("model", "recommend"), ("priority", "normal"), ("reason", "late")
    assert samples[("tradewind_requests_refused_total", *late)] == 1


def test_a_batch_that_does_not_end_is_not_waited_for(client, recommend_server):
    """Its worker is stopped in the midst of it; the popular list answers, inside the deadline."""
    with stopped(client, recommend_server):
        headers = {"x-deadline-ms": "2000"}
        answer = client.post(recommend_server.url + RECOMMEND, json={"history": ["i1"]}, headers=headers)
        assert (answer.status_code, answer.headers["x-level"]) == (200, "popular")


def test_a_client_that_leaves_frees_its_slot(client, generic, tmp_path):
    """Its request is in the queue no longer, and nobody runs it."""
    with running(generic, tmp_path, "--slo", "60s") as server, ThreadPoolExecutor(1) as pool:
        with stopped(client, server):
            first = pool.submit(httpx2.post, server.url + TOTAL, json=NUMBER, timeout=60)
            until_in_flight(client, server, 1)
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(server.url + TOTAL, json=NUMBER, timeout=0.3)
            while scrape(client, server.url)["tradewind_requests_in_flight",] > 1:
                pass
        assert first.result().status_code == 200
        assert scrape(client, server.url)["tradewind_batch_rows_sum", ("model", "total")] == 1


def test_the_more_important_goes_first_and_use_is_counted_by_tenant(client, generic, tmp_path):
    """Three low requests wait; a high one that comes after them is run before them."""
    flags = ("--slo", "60s", "--access-log", "all")
    with running(generic, tmp_path, *flags) as server, ThreadPoolExecutor(5) as pool:

        def post(name: str, priority: str, tenant: str) -> httpx2.Response:
            headers = {"x-request-id": name, "x-priority": priority, "x-tenant": tenant}
            return httpx2.post(server.url + TOTAL, json=NUMBER, headers=headers, timeout=60)

        with stopped(client, server):
            asked = [pool.submit(post, "running", "normal", "acme")]
            until_in_flight(client, server, 1)
            for count, name in enumerate(("low-1", "low-2", "low-3")):
                asked.append(pool.submit(post, name, "low", "crawler"))
                until_in_flight(client, server, count + 2)
            asked.append(pool.submit(post, "high", "1", "acme"))
            until_in_flight(client, server, 5)
        assert {future.result().status_code for future in asked} == {200}
        order = [line["request_id"] for line in server.lines if line.get("route") == "infer"]
        samples = scrape(client, server.url)
    assert order == ["running", "high", "low-1", "low-2", "low-3"]
    used = {key[2][1] for key in samples if key[0] == "tradewind_tenant_model_seconds_total"}
    assert used == {"acme", "crawler"}


def test_an_endpoint_is_a_file_and_flags_count_before_it(generic, tmp_path: pathlib.Path):
    """Classes, tenants and levels come from YAML; what is wrong in it is named."""
    path = tmp_path / "endpoint.yaml"
    path.write_text(
        f"model: {generic}\nslo: {{latency_ms: 80}}\nmax_batch: 7\nlevels: [{{program: affine}}]\n"
    )

    def dry_run() -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            "-c",
            COMMAND,
            "serve",
            str(path),
            "--slo",
            "20ms",
            "--dry-run",
            "-o",
            "json",
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    spec = json.loads(dry_run().stdout)["spec"]
    assert (spec["slo"]["latency_ms"], spec["max_batch"], spec["levels"][0]["program"]) == (20, 7, "affine")
    path.write_text(f"model: {generic}\nclases: []\n")
    wrong = dry_run()
    assert wrong.returncode == 2
    assert "classes" in wrong.stderr
