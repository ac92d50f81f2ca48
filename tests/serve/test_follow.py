"""A server that follows its alias: what it answers before, while and after the alias moves."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import torch
from torch.export import Dim, export

from tests.serve.conftest import Server, running
from tests.serve.test_metrics import scrape
from tradewind.models import publish, write_package
from tradewind.serve.server import locate
from tradewind.store import Store, open_store

URL = "/v2/models/times/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}


class Times(torch.nn.Module):
    """Its version is its answer to 1."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def published(store: Store, folder: pathlib.Path, factor: float, width: int = 2) -> int:
    """Publish the next version of `times`, which multiplies by `factor`."""
    program = export(Times(factor).eval(), (torch.ones(3, width),), dynamic_shapes=({0: Dim("b", min=1)},))
    package = folder / f"times-{factor}-{width}"
    write_package(
        package,
        name="times",
        task="generic",
        programs={"times": program},
        tensors={},
        vocabularies={},
        metrics={},
        lineage={},
        config={},
    )
    return publish(store, package, "times").version


def move(store: Store, version: int) -> None:
    store.set_alias("times", "production", version, why="the test's")


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A registry with version 1, which is in production, version 2, and version 3, which takes other inputs."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path))
    with open_store() as store:
        for factor, width in ((1.0, 2), (2.0, 2), (3.0, 5)):
            published(store, tmp_path, factor, width)
        move(store, 1)
        yield store


def ask(client: httpx2.Client, server: Server) -> str:
    """The version that answered, which must be the one that the answer names in all places."""
    answer = client.post(server.url + URL, json=BODY)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    version = said["model_version"]
    assert answer.headers["x-tradewind-version"] == version
    assert said["outputs"][0]["data"] == [float(version), 2 * float(version)]
    return version


def until_said(server: Server, event: str, count: int = 1) -> list[dict]:
    """Wait until the server has logged an event so often; return those lines."""
    # Tail is told by the kernel when the file grows, and ends with the server.
    command = ["tail", "-n", "+1", "-f", f"--pid={server.process.pid}", str(server.log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tail:
        try:
            for line in tail.stdout:
                count -= json.loads(line)["event"] == event
                if not count:
                    break
        finally:
            tail.kill()
    assert server.process.poll() is None, server.log.read_text()
    return [line for line in server.lines if line["event"] == event]


@contextlib.contextmanager
def asking(client: httpx2.Client, server: Server) -> Iterator[list[str]]:
    """Ask all the time during the block, from two threads; every answer is good, and named in the list."""
    versions: list[str] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            versions.append(ask(client, server))

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask_on) for _ in range(2)]
        try:
            yield versions
        finally:
            over.set()
            for future in asked:
                future.result()


def test_a_server_follows_its_alias_there_and_back_while_it_answers(store, tmp_path, client):
    """Every request is answered, by one version after the other; the old version's workers end."""
    with running("times@production", tmp_path, "--slo", "60s") as server:
        with asking(client, server) as versions:
            before = set(server.workers)
            for number, version in enumerate((2, 1), 1):
                move(store, version)
                until_said(server, "ended", number)
                while versions[-1] != str(version):
                    assert server.process.poll() is None
        assert set(versions) == {"1", "2"}
        assert before.isdisjoint(server.workers)
        names = client.get(server.url + "/v2/models/times").json()["versions"]
        assert names == [client.post(server.url + "/v2/repository/index").json()[0]["version"]] == ["1"]
        found = scrape(client, server.url)
    assert found["tradewind_version_changes_total", ("outcome", "switched")] == 2
    assert found["tradewind_version_info", ("version", "1")] == 1


def test_what_the_old_version_holds_it_answers_after_the_switch(store, tmp_path, client):
    """A request that it took before the new one was ready, and a worker of it that then dies, change nothing."""
    patient = "import tradewind.serve.dispatch as dispatch; dispatch.HANG_S = 1e6"
    with (
        running("times@production", tmp_path, "--slo", "60s", before=patient) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        while scrape(client, server.url)["tradewind_workers",] < 2:
            pass
        old = server.workers
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        held = pool.submit(httpx2.post, server.url + URL, json=BODY, timeout=60)
        while scrape(client, server.url)["tradewind_requests_in_flight",] < 1:
            pass
        move(store, 2)
        until_said(server, "switched")
        assert ask(client, server) == "2"
        assert not held.done()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert held.result().json()["model_version"] == "1"
        until_said(server, "ended")


def test_a_version_that_cannot_serve_leaves_the_old_one_until_the_alias_moves_again(store, tmp_path, client):
    """Other inputs, or other bytes: said once, in the log and the metrics, and not tried again; the next move is."""
    bad = published(store, tmp_path, 4.0)
    path = pathlib.Path(store.model_version(f"times@{bad}").path)
    path.rename(path.with_name("gone"))
    with running("times@production", tmp_path, "--slo", "60s") as server:
        for number, (version, why) in enumerate(((3, "has other inputs"), (bad, "could not be loaded")), 1):
            move(store, version)
            refused = until_said(server, "not switched", number)[-1]
            assert refused["version"] == str(version)
            assert why in refused["error"]
            server.process.send_signal(signal.SIGHUP)
            assert ask(client, server) == "1"
        move(store, 2)
        until_said(server, "ended")
        assert ask(client, server) == "2"
        assert [line["version"] for line in until_said(server, "loading")] == ["3", str(bad), "2"]
        found = scrape(client, server.url)
    assert found["tradewind_version_changes_total", ("outcome", "failed")] == 2


@pytest.mark.parametrize(
    ("model", "version", "alias"),
    [("times@1", "1", ""), ("times", "3", ""), ("times@production", "1", "times@production")],
)
def test_only_an_alias_is_followed(store, model, version, alias):
    """A number never means another version, and a name alone means the newest at the start."""
    found = locate(model, lambda: store)
    assert (found.version, found.alias) == (version, alias)
