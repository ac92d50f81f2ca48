"""A server whose programs are compiled: before it starts, beside it, and where that goes wrong."""

import httpx2
import pytest
import torch

from tests.serve.conftest import running
from tests.serve.test_follow import until_said
from tests.serve.test_metrics import scrape
from tests.serve.test_programs import ends_the_process
from tests.services.compiled import WIDTH, Compiled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
X = [[0.25 * (i - j) for i in range(WIDTH)] for j in range(3)]
BODY = {"inputs": [{"name": "x", "shape": [3, WIDTH], "datatype": "FP32", "data": X}]}


def answer(client: httpx2.Client, url: str) -> torch.Tensor:
    found = client.post(f"{url}/v2/models/score/infer", json=BODY)
    assert found.status_code == 200, found.text
    return torch.tensor(found.json()["outputs"][0]["data"]).reshape(3, 4)


def how(client: httpx2.Client, url: str, program: str) -> tuple[float, str]:
    """What the metrics and the model's configuration say of a program."""
    shown = scrape(client, url)["tradewind_program_compiled", ("model", program), ("program", program)]
    config = client.get(f"{url}/v2/models/{program}/config").json()
    return shown, config["parameters"][f"execution.{program}"]["string_value"]


def expected(compiled: Compiled) -> torch.Tensor:
    return compiled.package.program("score")(torch.tensor(X))[0]


def test_a_server_runs_what_was_compiled(compiled, client):
    """Its answers are eager's; metrics and configuration say how each program runs."""
    with running(compiled.package.path, compiled.home, "--slo", "60s") as server:
        torch.testing.assert_close(answer(client, server.url), expected(compiled))
        assert how(client, server.url, "score") == (1, "compiled")
        assert {line["program"]: line["compiled"] for line in until_said(server, "program", 3)}["score"]


def test_what_is_not_compiled_is_compiled_beside_serving(compiled, client):
    """It answers before, while and after; one that is refused stays eager, and says why."""
    compiled.forge("twin", compiled.library("score").read_bytes())
    for path in compiled.library("score").parent.iterdir():
        path.unlink()
    compiled.library("score").parent.rmdir()
    with running(compiled.package.path, compiled.home, "--slo", "60s", "--compile") as server:
        shown, said = how(client, server.url, "score")
        assert (shown, said.startswith("eager: not compiled")) == (0, True)
        first = until_said(server, "program", 3)
        before = set(server.workers)
        while not any(line["event"] == "ended" for line in server.lines):
            torch.testing.assert_close(answer(client, server.url), expected(compiled))
        assert before.isdisjoint(server.workers)
        assert how(client, server.url, "score") == (1, "compiled")
        shown, said = how(client, server.url, "twin")
        assert (shown, "differs from eager's" in said) == (0, True)
        torch.testing.assert_close(answer(client, server.url), expected(compiled))
        assert [line["program"] for line in until_said(server, "compiled")] == ["score"]
        assert len(first) == 3


def test_without_a_compiler_it_serves_and_says_so(compiled_once, tmp_path, client, monkeypatch):
    """In the log, once for each program."""
    monkeypatch.setenv("CXX", "nonesuch")
    with running(compiled_once.package.path, tmp_path, "--slo", "60s", "--compile") as server:
        said = until_said(server, "not compiled", 3)
        assert all("no C++ compiler (nonesuch)" in line["error"] for line in said)
        torch.testing.assert_close(answer(client, server.url), expected(compiled_once))


def test_code_that_ends_the_worker_does_not_end_serving(compiled, tmp_path, client):
    """The worker is started again without it."""
    compiled.forge("score", ends_the_process(tmp_path))
    with running(compiled.package.path, compiled.home, "--slo", "60s") as server:
        lost = until_said(server, "worker lost while loading; tried again without compiled programs")
        assert len(lost) == 1
        torch.testing.assert_close(answer(client, server.url), expected(compiled))
        assert how(client, server.url, "score")[0] == 0
