"""The dispatcher over real worker processes: retries, late answers, cancelled clients, bad neighbours."""

import asyncio
import contextlib
import itertools
import os
import signal
import time

import numpy as np
import pytest

from tests.serve.engine import prepared
from tests.serve.simulated import VirtualPool, VirtualWorker
from tradewind.serve import dispatch, wire
from tradewind.serve.dispatch import Dispatcher
from tradewind.serve.errors import RequestError
from tradewind.serve.jobs import Prepared, Tensor
from tradewind.serve.metrics import Metrics
from tradewind.serve.profile import Profile


def ids(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.int64)


async def error_of(job) -> RequestError:
    with pytest.raises(RequestError) as caught:
        await job.future
    return caught.value


class Told(VirtualWorker):
    """Answers when it is told to; notes what is sent to it."""

    def __init__(self, events: list[str]) -> None:
        super().__init__({})
        self.events = events
        self.answers: list[asyncio.Future[tuple[wire.Reply, bytes]]] = []

    def call(self, call, buffers, begin_within_s=None):
        self.events.append("sent")
        self.answers.append(asyncio.get_running_loop().create_future())
        return self.answers[-1]

    def end(self) -> None:
        reply = wire.Reply(tensors=(wire.TensorSpec("y", "UINT8", (1, 1)),))
        self.answers[-1].set_result((reply, b"y"))


def test_an_idle_worker_gets_its_next_batch_before_anything_else_is_done():
    """Whatever the loop has to do besides comes after that, and so do the answers of the batch that has ended."""
    one = Prepared({"x": Tensor("UINT8", (1, 1), b"x")}, 1, "x")
    events: list[str] = []

    async def scenario():
        dispatcher, worker = Dispatcher(Metrics(1.0, ["0"])), Told(events)
        dispatcher.pool = VirtualPool([worker])
        dispatcher.add_program("model", Profile({1: 0.001}))
        loop, deadline_s = asyncio.get_running_loop(), time.monotonic() + 60.0
        first = dispatcher.submit("model", one, deadline_s)
        dispatcher.pump()
        second = dispatcher.submit("model", one, deadline_s)
        await asyncio.sleep(0)
        first.future.add_done_callback(lambda _: events.append("answered"))
        worker.end()
        loop.call_soon(events.append, "other")
        await first.future
        worker.end()
        await second.future

    asyncio.run(scenario())
    assert events == ["sent", "sent", "other", "answered"]


def test_a_request_whose_worker_dies_is_run_again_inside_its_deadline(engine):
    """The spare answers what the killed worker did not, and the retry is counted."""

    async def scenario():
        await engine.loaded()
        retried = engine.metrics.retried.labels("lookup")._value.get()
        with engine.stopped():
            job = await engine.begin(ids=ids(1, 2))
            os.kill(engine.pool.processes[0], signal.SIGKILL)
        result = await job.future
        assert result.tensors["output"].shape == (1, 2, 4)
        assert engine.metrics.retried.labels("lookup")._value.get() == retried + 1

    engine.run(scenario())


def test_a_request_whose_worker_dies_after_its_deadline_is_told_so(engine):
    """There is no second run when its deadline has passed: 503, for it was not the client's doing."""

    async def scenario():
        await engine.loaded()
        with engine.stopped():
            job = await engine.begin(ids=ids(1), budget_s=30.0)
            engine.ahead_s += 31.0
            os.kill(engine.pool.processes[0], signal.SIGKILL)
            error = await error_of(job)
        assert (error.status, error.retry_after_s) == (503, 1.0)

    engine.run(scenario())


def test_a_request_whose_deadline_is_past_is_not_tried(engine, monkeypatch):
    """Though an idle worker tries what may be late, when nothing was measured lately: at the start, or for a second."""
    now = time.monotonic() + engine.ahead_s + 5.0
    monkeypatch.setattr(engine.dispatcher, "_clock", lambda: now)
    program, one = "lookup", prepared(ids=ids(1))

    async def scenario():
        await engine.loaded()
        too_little_s = engine.dispatcher.profiles[program].fastest_s / 2
        job = engine.dispatcher.submit(program, one, now + too_little_s)
        engine.dispatcher.cancel(program, job)
        with pytest.raises(RequestError) as caught:
            engine.dispatcher.submit(program, one, now)
        assert caught.value.status == 429

    engine.run(scenario())


def test_a_request_that_kills_its_workers_is_given_up(engine, monkeypatch):
    """After `MAX_TRIES` deaths the request is taken for the cause, and the service goes on."""
    monkeypatch.setattr(dispatch, "MAX_TRIES", 1)

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            poison = await engine.begin(ids=ids(1))
            os.kill(engine.pool.processes[0], signal.SIGKILL)
            error = await error_of(poison)
        assert error.status == 422
        assert "died while running this request" in str(error)
        assert await engine.submit(ids=ids(3)).future

    engine.run(scenario())


def test_a_worker_that_hangs_is_replaced(engine, monkeypatch):
    """A batch that takes far too long has its worker killed, and runs on another one."""
    monkeypatch.setattr(dispatch, "HANG_S", 0.1)
    monkeypatch.setattr(dispatch, "HANG_BATCHES", 0.0)

    async def scenario():
        await engine.loaded()
        restarts = engine.pool.restarts
        with engine.stopped():
            job = await engine.begin(ids=ids(1))
            hung, spare = engine.pool.processes
            os.kill(spare, signal.SIGCONT)
            assert await job.future
        assert engine.pool.restarts == restarts + 1
        assert hung not in engine.pool.processes

    engine.run(scenario())


def test_without_a_worker_a_request_waits_until_its_deadline_and_no_longer(engine):
    """503 when none came back in time."""

    async def scenario():
        await engine.loaded(1)
        for pid in engine.pool.processes:
            os.kill(pid, signal.SIGKILL)
        while engine.pool.size:
            engine.changed.clear()
            await engine.changed.wait()
        error = await error_of(engine.submit(ids=ids(1), budget_s=0.05))
        assert error.status == 503
        assert await engine.submit(ids=ids(1)).future, "a patient request gets the replacement"

    engine.run(scenario())


def test_an_answer_that_is_late_is_still_an_answer(engine):
    """What has run is not thrown away because its deadline passed meanwhile."""

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            job = await engine.begin(ids=ids(1), budget_s=10.0)
            engine.ahead_s += 11.0
        assert (await job.future).batch_rows == 1

    engine.run(scenario())


def test_a_request_that_waits_past_its_deadline_is_refused_at_once(engine):
    """The queue sheds it when its deadline passes, although every worker is busy and stays so."""

    async def scenario():
        await engine.loaded()
        with engine.stopped():
            running = await engine.begin(ids=ids(1))
            error = await error_of(engine.submit(ids=ids(2), budget_s=0.2))
            assert running.tries == 0
        assert error.status == 429
        assert await running.future

    engine.run(scenario())


def test_what_comes_together_is_one_batch_though_a_worker_is_idle(engine):
    """The first does not leave the others behind; once it is on its way it waits for nobody."""

    async def scenario():
        await engine.loaded(1)
        together = [engine.submit(ids=ids(n)) for n in range(3)]
        later = await engine.begin(ids=ids(3))
        assert [(await job.future).batch_rows for job in (*together, later)] == [4] * 4
        alone = await engine.begin(ids=ids(4))
        after = engine.submit(ids=ids(5))
        assert [(await job.future).batch_rows for job in (alone, after)] == [1, 1]

    engine.run(scenario())


def test_a_client_that_leaves_frees_its_place(engine):
    """A cancelled request is neither queued nor run, and the batch goes on without it."""

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            running = await engine.begin(ids=ids(1))
            leaving, staying = engine.submit(ids=ids(2)), engine.submit(ids=ids(3))
            assert engine.dispatcher.in_flight == 3
            engine.dispatcher.cancel("lookup", leaving)
            assert engine.dispatcher.in_flight == 2
        assert (await staying.future).batch_rows == 1
        assert await running.future
        assert leaving.future.cancelled()

    engine.run(scenario())


def test_a_client_that_leaves_while_its_batch_runs_harms_nobody(engine):
    """Its rows are thrown away, its neighbours' are delivered."""

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            first = await engine.begin(ids=ids(1))
            leaving, staying = engine.submit(ids=ids(2)), engine.submit(ids=ids(3))
        await first.future
        engine.dispatcher.cancel("lookup", leaving)
        assert await staying.future
        assert engine.dispatcher.in_flight == 0

    engine.run(scenario())


def test_what_waits_together_runs_together(engine):
    """Requests of one shape that gather behind a busy worker become one batch, and each gets its own rows."""

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            await engine.begin(ids=ids(0))
            jobs = [engine.submit(ids=ids(n, n + 1)) for n in range(5)]
            other = engine.submit(ids=ids(1, 2, 3))
        results = [await job.future for job in jobs]
        assert {r.batch_rows for r in results} == {5}
        assert (await other.future).batch_rows == 1
        rows = [np.frombuffer(r.tensors["output"].data, np.float32).reshape(2, 4) for r in results]
        for before, after in itertools.pairwise(rows):
            np.testing.assert_array_equal(before[1], after[0])

    engine.run(scenario())


def test_a_bad_request_does_not_fail_its_neighbours(engine):
    """A batch that fails is run again one by one: only the guilty request is refused."""

    async def scenario():
        await engine.loaded(1)
        with engine.stopped():
            await engine.begin(ids=ids(0))
            good, bad, more = (engine.submit(ids=ids(n)) for n in (1, 99, 2))
        error = await error_of(bad)
        assert error.status == 422
        assert "failed on this input" in str(error)
        assert [(await job.future).batch_rows for job in (good, more)] == [1, 1]

    engine.run(scenario())


def test_nan_is_refused_to_whose_it_is_and_its_neighbours_are_run_without_it(engine):
    """The worker sees it before the model does: 400, and one batch of all the others."""

    async def scenario():
        await engine.loaded(1)
        x, n = np.ones((2, 4), np.float32), np.array([7, 8])
        broken = x.copy()
        broken[1, 2] = np.nan
        with engine.stopped():
            await engine.begin(ids=ids(0))
            good, bad, more = (engine.submit("affine", x=of, ids=n) for of in (x, broken, 2 * x))
        error = await error_of(bad)
        assert (error.status, str(error)) == (400, "input 'x': an element is NaN")
        results = [await job.future for job in (good, more)]
        assert [result.batch_rows for result in results] == [4, 4]
        assert results[0].tensors.keys() == results[1].tensors.keys()

    engine.run(scenario())


def test_nan_in_a_request_that_shares_no_batch_is_its_own(engine):
    """Whatever its first dimension counts."""

    async def scenario():
        await engine.loaded(1)
        x = np.array([1.0, np.nan], np.float32)
        one = Prepared({"x": Tensor("FP32", x.shape, x.tobytes())}, 1, object())
        error = await error_of(
            engine.dispatcher.submit("total", one, time.monotonic() + engine.ahead_s + 30.0)
        )
        assert error.status == 400

    engine.run(scenario())


def test_more_than_can_be_done_in_time_is_refused_at_once(engine):
    """Admission counts what is queued: a burst beyond the budget is refused, and every request has an end."""

    async def scenario():
        await engine.loaded(1)
        profile = engine.dispatcher.profiles["total"]
        x = np.ones((4,), dtype=np.float32)
        budget_s = 10 * profile.bound_s(1)
        jobs, refused = [], []
        with engine.stopped():
            for _ in range(100):
                try:
                    jobs.append(engine.submit("total", x=x, budget_s=budget_s))
                except RequestError as error:
                    refused.append(error)
        assert len(refused) > 50
        assert {error.status for error in refused} == {429}
        assert min(error.retry_after_s for error in refused) > 0
        for job in jobs:
            with contextlib.suppress(RequestError):
                await job.future
        assert engine.dispatcher.in_flight == 0

    engine.run(scenario())


def test_hundreds_at_once_are_all_answered(engine):
    """Nothing is lost or answered twice when the queue is long."""

    async def scenario():
        await engine.loaded(1)
        jobs = [engine.submit(ids=ids(n % 16)) for n in range(300)]
        results = await asyncio.gather(*(job.future for job in jobs))
        rows = [bytes(r.tensors["output"].data) for r in results]
        assert rows == rows[:16] * 18 + rows[:12]
        assert len(set(rows)) == 16
        assert max(r.batch_rows for r in results) == 16
        assert engine.dispatcher.in_flight == 0

    engine.run(scenario())
