"""The door: what is refused unread, and what is let through to be read."""

import time

import pytest

from tests.serve.test_replica import replica
from tradewind.serve.app import NO_TIME, App
from tradewind.serve.http import Request, Response
from tradewind.serve.metrics import Metrics

INFER = "/v2/models/net/infer"


def ask(waited_s: float, body: bytes = b"{", **headers: str) -> tuple[Response, Metrics]:
    """The answer to a request that was read so long after it arrived."""
    made = replica("generic", "net")
    app = App(made)
    encoded = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    request = Request("POST", INFER, encoded, True)
    request.body, request.arrived_s = body, time.monotonic() - waited_s
    return app.answer(request), made.metrics


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
