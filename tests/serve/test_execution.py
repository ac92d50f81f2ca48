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
from tradewind.serve.placement import Place

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
            await pool._load(Place())
        await pool.close()

    asyncio.run(scenario())


SLEEPY = """
class Sleepy:
    inputs = {"x": "FP32[-1]"}
    outputs = {"y": "FP32[-1]"}

    def __call__(self, x):
        return x
"""


def affinities(pid: int) -> set[frozenset[int]]:
    """The CPUs of each thread of a process."""
    threads = [int(entry.name) for entry in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return {frozenset(os.sched_getaffinity(thread)) for thread in threads}


def test_workers_keep_to_their_places_and_so_does_who_replaces_them(tmp_path):
    """All their threads, from before the model is loaded; the process that started them keeps its CPUs."""
    (tmp_path / "echo.py").write_text(SLEEPY)
    own = os.sched_getaffinity(0)
    first, last = Place(1, (min(own),)), Place(2, (max(own),))

    async def scenario():
        changed = asyncio.Event()
        made = WorkerOptions(f"{tmp_path}/echo.py:Sleepy", 4, 0, places=(first, last), repeats=0)
        pool = Pool(made, 2, 1, changed.set)
        try:
            await pool.start(3)
            assert sorted(pool.places) == sorted([first, last, first])
            for worker in pool._idle:
                assert affinities(worker.process.pid) == {frozenset(worker.place.cpus)}
            victim = next(worker for worker in pool._idle if worker.place == last)
            os.kill(victim.process.pid, signal.SIGKILL)
            while pool.restarts < 1 or pool.size < 3:
                changed.clear()
                await changed.wait()
            assert sorted(pool.places) == sorted([first, last, first])
        finally:
            await pool.close()

    asyncio.run(scenario())
    assert os.sched_getaffinity(0) == own


def test_batches_go_where_no_other_runs(tmp_path):
    """A spare shares the place of a worker: while that one is busy, the batch goes to the other place."""
    (tmp_path / "echo.py").write_text(SLEEPY)
    here, there = Place(1), Place(2)

    async def scenario():
        made = WorkerOptions(f"{tmp_path}/echo.py:Sleepy", 4, 0, places=(there, here, here), repeats=0)
        pool = Pool(made, 2, 1, lambda: None)
        try:
            await pool.start(3)
            for _ in range(3):
                taken = [pool.take(), pool.take()]
                assert {worker.place for worker in taken} == {here, there}
                assert pool.take() is None
                for worker in taken:
                    pool.give_back(worker)
        finally:
            await pool.close()

    asyncio.run(scenario())


BREAKS = """
import pathlib, torch

class Breaks:
    inputs = {"x": "FP32[-1]"}
    outputs = {"y": "FP32[-1]"}

    def __call__(self, x):
        broken = pathlib.Path(__file__).with_name("broken")
        if x[0] == 1.0 and not broken.exists():
            broken.touch()
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if x[0] == 2.0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return x
"""


def test_a_worker_whose_device_is_lost_is_replaced_and_its_request_answered(client, tmp_path):
    """Nothing works in that process any more; out of memory is an error of that batch alone."""
    (tmp_path / "breaks.py").write_text(BREAKS)

    def ask(value: float) -> httpx2.Response:
        body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [value]}]}
        return client.post(
            server.url + "/v2/models/Breaks/infer", json=body, headers={"x-deadline-ms": "60000"}
        )

    with running(f"{tmp_path}/breaks.py:Breaks", tmp_path) as server:
        assert ask(2.0).status_code == 422
        assert "out of memory" in ask(2.0).text
        assert scrape(client, server.url)["tradewind_worker_restarts_total",] == 0
        assert ask(1.0).json()["outputs"][0]["data"] == [1.0]
        assert scrape(client, server.url)["tradewind_worker_restarts_total",] == 1
        (lost,) = [line for line in server.lines if line["event"] == "device lost"]
        assert lost["error"] == "CUDA error: an illegal memory access was encountered"
        (replaced,) = [line for line in server.lines if line["event"] == "worker lost"]
        assert (replaced["pid"], replaced["exit_code"]) == (lost["pid"], 1)
