"""Responses as bytes."""

import pytest

from tradewind.serve.http import Request, Response, failure, json_response

DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_head_states_what_follows():
    """Length, type, date and the answer's own headers; whether the connection stays open only when it does not."""
    response = Response(200, b"12345", "text/plain", (("x-a", "b"),))
    assert response.head(DATE, keep_alive=True) == (
        b"HTTP/1.1 200 OK\r\ndate: " + DATE + b"\r\n"
        b"content-type: text/plain\r\ncontent-length: 5\r\nx-a: b\r\n\r\n"
    )
    assert b"connection: close\r\n" in response.head(DATE, keep_alive=False)


@pytest.mark.parametrize(
    "body", [b"abcd", bytearray(4), memoryview(b"abcd"), memoryview(bytes(16)).cast("f")]
)
def test_the_length_is_in_bytes(body):
    """Whatever holds them."""
    size = memoryview(body).nbytes
    assert f"content-length: {size}\r\n".encode() in Response(200, body).head(DATE, True)


def test_failures_are_json():
    """One key, `error`, beside the status and headers."""
    assert failure(429, "busy", (("retry-after", "1"),)) == Response(
        429, b'{"error":"busy"}', headers=(("retry-after", "1"),)
    )
    assert json_response([1]).body == b"[1]"


def test_headers_are_looked_up_in_lower_case():
    """Bytes that are no UTF-8 are still text."""
    request = Request("GET", "/", {b"x-a": b"caf\xe9"}, True)
    assert request.header(b"x-a") == "caf\xe9"
    assert request.header(b"x-b") is None
