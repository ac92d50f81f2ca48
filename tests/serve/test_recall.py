"""Searches are done again exactly when there is nothing else to do, and recall is a metric."""

import asyncio
import socket
import threading

import msgspec
import numpy as np
import pytest
import structlog.testing

from tests.serve.simulated import Ask, Simulation, VirtualWorker, linear
from tradewind.models import open_package
from tradewind.retrieve.audit import Audit, Sample
from tradewind.retrieve.auto import AutoIndex
from tradewind.retrieve.plan import Plan
from tradewind.serve import wire
from tradewind.serve.execution import WorkerLost
from tradewind.serve.worker import _answer, runners_of

PLAN = Plan("probe", need=100, us=1.0, share=0.1, reason="for the test")


class Auditing(VirtualWorker):
    """Says that a search waits after each batch; the last finding corrects the plan."""

    def __init__(self, costs, findings) -> None:
        super().__init__(costs)
        self.findings = list(findings)
        self.waiting = 0
        self.audited_at: list[float] = []
        self.dies = False

    async def call(self, call, buffers, begin_within_s=None):
        if call.program == wire.AUDIT:
            self.audited_at.append(asyncio.get_running_loop().time())
            await asyncio.sleep(0.002)
            if self.dies:
                raise WorkerLost
            self.waiting -= 1
            return wire.Reply(due=self.waiting, finding=self.findings.pop(0)), b""
        reply, body = await super().call(call, buffers, begin_within_s)
        self.waiting += 1
        return msgspec.structs.replace(reply, due=self.waiting), body


def simulated(findings, **options) -> tuple[Simulation, Auditing]:
    """One auditing worker behind the real dispatcher."""
    cost = linear(0.001, 0.0)
    simulation = Simulation({"full": cost}, **options)
    worker = Auditing({"full": cost}, findings)
    simulation.workers[:] = [worker]
    simulation.pool._idle[:] = [worker]
    return simulation, worker


def test_recall_is_measured_between_requests_and_shown_with_its_interval():
    """By plan and share of allowed items."""
    recalls = [1.0, 0.9, 1.0, 0.8]
    simulation, worker = simulated([wire.Finding("probe", 0.1, recall) for recall in recalls])
    simulation.run([Ask(0.5 * i) for i in range(4)])
    assert len(worker.audited_at) >= 2
    known = recalls[: len(worker.audited_at)]
    labels = ("probe", "0.1")
    assert simulation.metrics.recall.labels(*labels)._value.get() == pytest.approx(np.mean(known))
    low, high = (
        s.labels(*labels)._value.get()
        for s in (simulation.metrics.recall_low, simulation.metrics.recall_high)
    )
    assert low < np.mean(known) < high <= 1.0
    assert simulation.metrics.searches_audited.labels("probe")._value.get() == len(known)
    assert simulation.metrics.corrections.labels("probe")._value.get() == 0


def test_no_more_than_a_hundredth_of_the_time_goes_into_it():
    """After the first: forty requests in a fifth of a second leave room for one more of two milliseconds."""
    simulation, worker = simulated([wire.Finding("probe", 0.1, 1.0)] * 40)
    simulation.run([Ask(0.005 * i) for i in range(40)])
    assert 1 <= len(worker.audited_at) <= 2


def test_a_correction_is_logged_in_words():
    """With the plan, and counted."""
    words = "recall of probe near 10.0% allowed is 0.500: it looks at 2 times as much"
    simulation, _ = simulated([wire.Finding("probe", 0.1, 0.5, words)])
    with structlog.testing.capture_logs() as lines:
        simulation.run([Ask(0.0)])
    assert [(line["event"], line["correction"]) for line in lines] == [("retrieval plan corrected", words)]
    assert simulation.metrics.corrections.labels("probe")._value.get() == 1


def test_nothing_is_done_again_while_requests_wait():
    """Thirty requests come at once, one a batch: the audit comes after the last."""
    simulation, worker = simulated([wire.Finding("probe", 0.1, 1.0)] * 9, max_batch=1)
    outcomes = simulation.run([Ask(0.0) for _ in range(30)])
    assert all(outcome.in_time for outcome in outcomes)
    assert worker.audited_at
    assert min(worker.audited_at) >= max(outcome.ended_s for outcome in outcomes)


def test_a_worker_that_dies_at_it_takes_no_request_with_it():
    """And is not asked again."""
    simulation, worker = simulated([])
    worker.dies = True
    outcomes = simulation.run([Ask(0.0), Ask(1.0)])
    assert all(outcome.in_time for outcome in outcomes)
    assert 1 <= len(worker.audited_at) <= 2


def test_a_worker_says_what_waits_and_does_it_again_when_asked(recommender):
    """Over its socket: a sample that found nothing of what an exact search finds has a recall of 0."""
    runners = runners_of(open_package(recommender), 4, 20, "auto")
    index = runners["recommend"].recommender._index
    assert isinstance(index, AutoIndex)
    query = index.state.base.vectors[5:6]
    index.audit.keep(Sample(index.state, PLAN, query, 3, None, np.full(3, -np.inf, np.float32)))
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=_answer, args=(theirs, runners))
    serving.start()
    said = []
    with ours, theirs:
        for _ in range(2):
            wire.send(ours, wire.Call(wire.AUDIT, ()))
            said.append(msgspec.json.decode(wire.receive(ours)[0], type=wire.Reply))
        ours.shutdown(socket.SHUT_RDWR)
        serving.join()
    assert (said[0].finding, said[0].due) == (wire.Finding("probe", PLAN.band, 0.0), 0)
    assert (said[1].finding, said[1].error) == (None, None)


def test_what_is_measured_at_start_is_not_audited(recommender):
    """Those histories are nobody's."""
    runner = runners_of(open_package(recommender), 4, 20, "auto")["recommend"]
    audit: Audit = runner.recommender.audit
    audit.keep(
        Sample(
            runner.recommender._index.state,
            PLAN,
            np.zeros((1, 8), np.float32),
            1,
            None,
            np.zeros(1, np.float32),
        )
    )
    runner.describe(iter(np.arange(1000.0)).__next__, 1)
    assert audit.due() == 0
