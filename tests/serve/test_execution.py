"""Workers as processes: killed under load, changed on disk, left behind, unable to load."""

import asyncio
import os
import pathlib
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.serve.conftest import running
from tests.serve.test_metrics import BODY, scrape
from tradewind.errors import TradewindError
from tradewind.serve.execution import Pool, WorkerOptions

LOOKUP = "/v2/models/lookup/infer"


def test_killing_every_worker_under_load_loses_no_request(client, generic_server):
    """`kill -9` of all model processes while requests stream in: each that had budget left is answered with 200."""
    patient = {"x-deadline-ms": "60000"}
    killed = threading.Event()
    expected = client.post(generic_server.url + LOOKUP, json=BODY).json()["outputs"]

    def stream(_: int) -> list[httpx2.Response]:
        with httpx2.Client(trust_env=False, timeout=90) as own:
            answers = []
            while not killed.is_set() or len(answers) < 20:
                answers.append(own.post(generic_server.url + LOOKUP, json=BODY, headers=patient))
            answers.append(own.post(generic_server.url + LOOKUP, json=BODY, headers=patient))
            return answers

    while (before := scrape(client, generic_server.url))["tradewind_workers",] < 2:
        pass
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, i) for i in range(8)]
        while scrape(client, generic_server.url)["tradewind_requests_in_flight",] == 0:
            pass
        victims = generic_server.workers
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed.set()
        answers = [answer for future in streams for answer in future.result(120)]
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["outputs"] == expected for answer in answers)
    after = scrape(client, generic_server.url)
    assert after["tradewind_worker_restarts_total",] == before["tradewind_worker_restarts_total",] + len(
        victims
    )
    assert not set(victims) & set(generic_server.workers)


def test_workers_end_with_the_process_that_started_them(generic, tmp_path):
    """`kill -9` of the server leaves no model process behind: its end of their socket is gone."""
    with running(generic, tmp_path) as server:
        workers = [os.pidfd_open(pid) for pid in server.workers]
        assert workers
        server.process.kill()
        server.process.wait()
        for descriptor in workers:
            with open(descriptor, closefd=True) as process:
                assert ended(process.fileno(), 30.0)


def ended(pidfd: int, timeout_s: float) -> bool:
    """Wait for the end of a process that is not our child."""
    import select

    return bool(select.select([pidfd], [], [], timeout_s)[0])


def options(package: pathlib.Path) -> WorkerOptions:
    return WorkerOptions(str(package), 4, 0)


@pytest.fixture
def copy(generic: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the generic package that a test may damage."""
    return shutil.copytree(generic, tmp_path / "copy")


def test_a_package_that_cannot_be_loaded_says_why(copy):
    """The worker's own words reach whoever started the server, and nothing is left running."""
    next((copy / "weights").iterdir()).write_bytes(b"damaged")

    async def scenario():
        pool = Pool(options(copy), 1, 0, lambda: None)
        with pytest.raises(TradewindError, match="the bytes are not those that were published"):
            await pool.start()
        assert pool.size == 0
        await pool.close()

    asyncio.run(scenario())


def test_a_replacement_serves_the_same_package_or_none(copy, recommender):
    """A folder that was overwritten meanwhile does not change the model under its name."""

    async def scenario():
        changed = asyncio.Event()
        pool = Pool(options(copy), 1, 0, changed.set)
        await pool.start()
        shutil.rmtree(copy)
        shutil.copytree(recommender, copy)
        os.kill(pool.processes[0], signal.SIGKILL)
        await changed.wait()
        with pytest.raises(TradewindError, match="digest"):
            await pool._load()
        await pool.close()

    asyncio.run(scenario())
