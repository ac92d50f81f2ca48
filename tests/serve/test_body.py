"""Content encodings, and bombs in them."""

import gzip
import zlib

import pytest

from tradewind.serve.body import plain_body
from tradewind.serve.errors import RequestError
from tradewind.serve.http import Request

LIMIT = 1 << 16


def read(body: bytes, encoding: str | None) -> bytes:
    request = Request("POST", "/", {} if encoding is None else {b"content-encoding": encoding.encode()}, True)
    request.body = body
    return plain_body(request, LIMIT)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"abc", None),
        (b"abc", "identity"),
        (gzip.compress(b"abc"), "gzip"),
        (gzip.compress(b"abc"), "GZIP"),
        (zlib.compress(b"abc"), "deflate"),
    ],
)
def test_a_body_is_the_same_in_every_encoding(body, encoding):
    """What the client compressed is what is parsed."""
    assert read(body, encoding) == b"abc"


def test_exactly_the_limit_is_allowed():
    """The limit counts what comes out, not what went in."""
    assert len(read(gzip.compress(bytes(LIMIT)), "gzip")) == LIMIT


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(bytes(LIMIT + 1)), "gzip", 413),
        (gzip.compress(bytes(100 << 20)), "gzip", 413),
        (zlib.compress(bytes(100 << 20)), "deflate", 413),
        (gzip.compress(gzip.compress(bytes(100 << 20))), "gzip", 413),
        (gzip.compress(b"abc")[:-1], "gzip", 400),
        (gzip.compress(b"abc") + b"more", "gzip", 400),
        (b"abc", "gzip", 400),
        (b"", "gzip", 400),
        (b"abc", "br", 415),
        (b"abc", "gzip, gzip", 415),
    ],
    ids=range(10),
)
def test_bombs_damage_and_unknown_encodings_are_refused(body, encoding, status):
    """No more is ever decompressed than the limit and a byte."""
    with pytest.raises(RequestError) as caught:
        read(body, encoding)
    assert caught.value.status == status
