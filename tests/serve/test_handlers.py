"""The door: what is refused unread, and what is let through to be read."""

import asyncio
import gc
import time
import weakref

import pytest

from tests.serve.test_replica import replica
from tradewind.serve import handlers
from tradewind.serve.app import NO_TIME, App
from tradewind.serve.errors import RequestError
from tradewind.serve.http import Pending, Request, Response
from tradewind.serve.metrics import Metrics

INFER = "/v2/models/net/infer"


def ask(waited_s: float, body: bytes = b"{", **headers: str) -> tuple[Response, Metrics]:
    """The answer to a request that was read so long after it arrived."""
    made = replica("generic", "net")
    request = inference(body, **headers)
    request.arrived_s = time.monotonic() - waited_s
    return App(made).answer(request), made.metrics


def inference(body: bytes, **headers: str) -> Request:
    """A request that came at the instant 0."""
    encoded = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = Request("POST", INFER, encoded, True)
    request.body, request.arrived_s = body, 0.0
    return request


def test_a_request_read_too_late_is_refused_unread():
    """429 before its body, malformed here, is looked at; counted as refused at the door."""
    response, metrics = ask(0.03)
    assert response is NO_TIME
    assert (response.status, response.headers) == (429, (("retry-after", "1"),))
    assert metrics.refused.labels("net", "door", "normal")._value.get() == 1


def test_a_request_read_soon_enough_is_read():
    """Its malformed body is what is wrong with it."""
    assert ask(0.001)[0].status == 400


def test_a_patient_request_may_wait_longer():
    """What counts is the share of its own budget."""
    assert ask(0.03, x_deadline_ms="5000")[0].status == 400
    assert ask(0.03, x_deadline_ms="20")[0].status == 429


def test_a_request_whose_deadline_is_in_its_body_is_read():
    """The protocol's `timeout` parameter can only be known after parsing."""
    assert ask(0.03, body=b'{"parameters": {"timeout": 5000000}')[0].status == 400


@pytest.mark.parametrize("header", ["soon", "-1"])
def test_a_malformed_deadline_is_malformed_at_the_door_too(header):
    """400, not a guess."""
    response, _ = ask(0.0, x_deadline_ms=header)
    assert response.status == 400
    assert b"x-deadline-ms" in response.body


@pytest.mark.parametrize(
    ("body", "headers", "rank"),
    [
        (b"{", {}, 1),
        (b"{", {"x_priority": "high"}, 0),
        (b'{"parameters": {"priority": 1}, "inputs": [', {}, 0),
        (b'{"parameters":{"priority" : "low"},', {"x_priority": "high"}, 2),
        (b'{"priority": [', {"x_priority": "low"}, 2),
    ],
    ids=["default", "header", "body", "body-before-header", "nonsense"],
)
def test_a_request_has_its_turn_by_what_it_seems_to_be(body, headers, rank):
    """Before its body is read: by its header, or by what the body seems to state; its deadline as stated."""
    app = App(replica("generic", "net"))
    turn = app.turn(inference(body, x_deadline_ms="70", **headers))
    assert turn == (rank, pytest.approx(0.07))


@pytest.mark.parametrize("headers", [{"x_priority": "urgent"}, {"x_deadline_ms": "soon"}, {"x_tenant": "/"}])
def test_what_can_only_be_told_what_is_wrong_waits_for_nobody(headers):
    """It is answered at once, with 400."""
    app = App(replica("generic", "net"))
    assert app.turn(inference(b"{", **headers)) is None
    assert app.answer(inference(b"{", **headers)).status == 400


def test_a_probe_waits_for_nobody():
    """Health and metrics are answered at once, however many wait."""
    app = App(replica("generic", "net"))
    assert app.turn(Request("GET", "/v2/health/ready", {}, True)) is None
    assert app.turn(Request("GET", "/metrics", {}, True)) is None


def test_a_body_behind_a_known_head_is_looked_through_for_what_it_states():
    """All of its JSON, and nothing before it."""
    body = b'{"parameters": {"priority": 1}}'
    request = inference(body, inference_header_content_length=str(len(body)))
    request.data, request.start = b'x-text: "priority": 3\r\n\r\n' + body, 25
    turn = App(replica("generic", "net")).turn(request)
    assert turn is not None
    assert turn.rank == 0
    assert request.body == body


@pytest.mark.parametrize(("waiting", "unread"), [(7, False), (8, True)])
def test_a_request_is_refused_unread_where_a_whole_batch_waits_before_it(monkeypatch, waiting, unread):
    """With less before it than that it is read first: what is wrong with it is said."""
    monkeypatch.setattr(handlers, "waited_too_long", lambda waited_s, budget_s: False)

    async def scenario() -> None:
        app, now = App(replica("generic", "net")), time.monotonic()
        row = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
        requests = [inference(row, x_deadline_ms="60000") for _ in range(waiting)]
        hurried = inference(b"{", x_deadline_ms="1")
        for request in requests:
            request.arrived_s = now
        answers = [app.answer(request) for request in requests]
        hurried.arrived_s = time.monotonic()
        refused = app.answer(hurried)
        assert isinstance(refused, Response)
        assert (refused.status, refused is NO_TIME) == ((429, True) if unread else (400, False))
        for answer in answers:
            assert isinstance(answer, Pending)
            answer.cancel()

    asyncio.run(scenario())


def test_a_request_that_waited_for_its_turn_goes_to_the_version_that_serves_by_then():
    """Though its path was looked up before, and others have come since the switch."""

    async def scenario() -> None:
        made = replica("generic", "net")
        app, before = App(made), made.serving
        row = b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}'
        waiting, other = (inference(row, x_deadline_ms="60000") for _ in range(2))
        waiting.arrived_s = other.arrived_s = time.monotonic()
        app.turn(waiting)
        made.serving = replica("generic", "net").serving
        app.turn(other)
        answer = app.answer(waiting)
        assert isinstance(answer, Pending)
        assert (before.dispatcher.in_flight, made.serving.dispatcher.in_flight) == (0, 1)
        answer.cancel()

    asyncio.run(scenario())


def test_a_request_that_is_given_up_leaves_nothing_for_the_garbage_collector():
    """What hundreds of refusals a second leave for it stops all others for tens of milliseconds when it comes."""

    async def scenario() -> weakref.ref[RequestError]:
        app = App(replica("generic", "net"))
        row = b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}'
        request = inference(row, x_deadline_ms="60000")
        request.arrived_s = time.monotonic()
        answer = app.answer(request)
        assert isinstance(answer, Pending)
        error = RequestError(429, "it can no longer be answered by its deadline", 0.1)
        answer.future.set_exception(error)
        answer.cancel()
        assert answer.respond(answer.future).status == 429
        return weakref.ref(error)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(scenario())() is None
    finally:
        gc.enable()
