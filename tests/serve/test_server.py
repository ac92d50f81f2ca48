"""A server's life: it starts, and at the end it answers what it was asked."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.serve.conftest import COMMAND, Server, running
from tests.serve.test_metrics import BODY, scrape
from tradewind.errors import SpecError
from tradewind.models import promote, publish
from tradewind.serve.server import locate
from tradewind.store import Store, open_store

LOOKUP = "/v2/models/lookup/infer"
IN_FLIGHT = 12


@contextlib.contextmanager
def stopped(client: httpx2.Client, server: Server) -> Iterator[None]:
    """Stop both model workers for the block, once they are loaded."""
    while scrape(client, server.url)["tradewind_workers",] < 2:
        pass
    pids = server.workers
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def until_in_flight(client: httpx2.Client, server: Server, count: int) -> None:
    """Wait until the server has that many requests."""
    while scrape(client, server.url)["tradewind_requests_in_flight",] < count:
        pass


def test_sigterm_answers_what_is_in_flight_and_exits_0(generic, tmp_path, client):
    """Readiness turns false at once, requests go on being answered, none is dropped, the process ends with 0."""
    linger = "import tradewind.serve.server as server; server.LINGER_S = 1.0"
    with (
        running(generic, tmp_path, "--slo", "60s", before=linger) as server,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
    ):
        ready = server.url + "/v2/health/ready"
        assert client.get(ready).json() == {"ready": True}
        with stopped(client, server):
            asked = [
                pool.submit(httpx2.post, server.url + LOOKUP, json=BODY, timeout=60) for _ in range(IN_FLIGHT)
            ]
            until_in_flight(client, server, IN_FLIGHT)
            server.process.send_signal(signal.SIGTERM)
            while (draining := client.get(ready)).status_code == 200:
                pass
            assert (draining.status_code, draining.headers["connection"]) == (503, "close")
            assert draining.json() == {"error": "draining"}
            assert client.get(server.url + "/v2/health/live").status_code == 200
        assert {future.result().status_code for future in asked} == {200}
        assert server.process.wait(30) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(ready)
        assert [line["event"] for line in server.lines if "drain" in line["event"]] == ["draining", "drained"]


def test_a_second_sigterm_ends_at_once(generic, tmp_path, client):
    """Whoever cannot wait does not have to: what is in flight is cut off, and the exit is still 0."""
    with running(generic, tmp_path, "--slo", "60s") as server, ThreadPoolExecutor(1) as pool:
        with stopped(client, server):
            cut_off = pool.submit(httpx2.post, server.url + LOOKUP, json=BODY, timeout=60)
            until_in_flight(client, server, 1)
            server.process.send_signal(signal.SIGTERM)
            while client.get(server.url + "/v2/health/ready").status_code == 200:
                pass
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
        assert isinstance(cut_off.exception(), httpx2.TransportError)


def test_a_port_that_is_taken_is_named(generic, tmp_path):
    """A usage error that says which address, before anything is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-c", COMMAND, "serve", str(generic), "--port", str(port)]
        env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def no_store():
    raise AssertionError("a folder needs no store")


def test_a_package_is_found_by_its_folder(generic):
    """A path to a package is served as it is, version 1."""
    assert locate(str(generic), no_store) == (generic.resolve(), "1", "", "")


def test_a_folder_without_a_package_is_named(tmp_path: pathlib.Path):
    """The message says what is missing there."""
    with pytest.raises(SpecError, match=r"manifest\.json"):
        locate(str(tmp_path / "nothing"), no_store)


def test_dry_run_says_what_would_be_served(generic, tmp_path):
    """Nothing is started."""
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "serve",
        str(generic),
        "--dry-run",
        "--slo",
        "20ms",
        "-o",
        "json",
    ]
    env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=True)
    assert json.loads(done.stdout)["spec"]["slo"]["latency_ms"] == 20


def test_settings_beside_a_model_are_what_flags_do_not_say(generic, tmp_path):
    """The model and the flags count before the file; a file that is the endpoint's already takes no other."""
    settings = tmp_path / "live.yaml"
    settings.write_text(
        "model: other@3\nslo: {latency_ms: 5}\nclasses: [{name: gold}]\ndefault_class: gold\n"
    )

    def serve(model: str, *flags: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", COMMAND, "serve", model, "--dry-run", "-o", "json", *flags]
        env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    spec = json.loads(serve(str(generic), "--settings", str(settings), "--slo", "20ms").stdout)["spec"]
    assert (spec["model"], spec["slo"]["latency_ms"]) == (str(generic), 20)
    assert [kind["name"] for kind in spec["classes"]] == ["gold"]
    assert (
        json.loads(serve(str(generic), "--settings", str(settings)).stdout)["spec"]["slo"]["latency_ms"] == 5
    )
    done = serve(str(settings), "--settings", str(settings))
    assert (done.returncode, "is the endpoint's file already" in done.stderr) == (2, True)
    settings.write_text("classses: []\n")
    done = serve(str(generic), "--settings", str(settings))
    assert (done.returncode, "did you mean `classes`?" in done.stderr) == (2, True)


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose home is `tmp_path`, as a command sees it that has the same `TRADEWIND_HOME`."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    with open_store() as store:
        yield store


def test_an_alias_is_served_under_its_version(generic, store, tmp_path, client):
    """`tradewind serve NAME@ALIAS` serves the version that the alias stands for, and says so."""
    publish(store, generic, "small")
    promote(store, "small", 1, "production")
    with running("small@production", tmp_path) as server:
        metadata = client.get(server.url + "/v2/models/affine").json()
    assert metadata["versions"] == ["1"]


def test_another_package_in_a_versions_place_is_not_served(generic, recommender, store, tmp_path):
    """The store's digest is what counts: the server ends with a message that says so."""
    path = pathlib.Path(publish(store, generic, "small").path)
    path.rename(path.with_name("gone"))
    shutil.copytree(recommender, path)
    env = os.environ | {"TRADEWIND_HOME": str(tmp_path)}
    command = [sys.executable, "-c", COMMAND, "serve", "small@1", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode != 0
    assert "digest" in done.stderr
