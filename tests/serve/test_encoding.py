"""Which responses are compressed, and how."""

import gzip
import zlib

import pytest

from tradewind.serve.encoding import MAX_BYTES, MIN_BYTES, encoded
from tradewind.serve.http import Request, Response

BODY = b"a" * MIN_BYTES


def answered(accepted: str | None, body: bytes = BODY, status: int = 200) -> Response:
    headers = {} if accepted is None else {b"accept-encoding": accepted.encode()}
    return encoded(Request("GET", "/", headers, True), Response(status, body))


@pytest.mark.parametrize(
    ("accepted", "coding", "inflate"),
    [
        ("gzip", "gzip", gzip.decompress),
        ("deflate", "deflate", zlib.decompress),
        ("br, GZIP;q=0.5, deflate", "gzip", gzip.decompress),
        ("gzip;q=0, deflate", "deflate", zlib.decompress),
    ],
)
def test_what_the_client_accepts_is_used_and_named(accepted, coding, inflate):
    """gzip before deflate; a quality of zero is a refusal."""
    response = answered(accepted)
    assert dict(response.headers)["content-encoding"] == coding
    assert inflate(response.body) == BODY
    assert len(response.body) < len(BODY)


@pytest.mark.parametrize(
    ("accepted", "body", "status"),
    [
        (None, BODY, 200),
        ("identity", BODY, 200),
        ("br", BODY, 200),
        ("gzip", BODY[1:], 200),
        ("gzip", bytes(MAX_BYTES + 1), 200),
        ("gzip", BODY, 500),
    ],
)
def test_the_rest_is_sent_as_it_is(accepted, body, status):
    """Nobody asked, it is small, or it would take too long."""
    assert answered(accepted, body, status).body is body
