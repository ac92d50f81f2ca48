"""A request's body, decompressed within its limit."""

import zlib

from tradewind.serve.errors import RequestError
from tradewind.serve.http import Request

CONTENT_ENCODING = b"content-encoding"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


def plain_body(request: Request, max_bytes: int) -> bytes:
    """Return the body without its content encoding.

    Raises RequestError: 413 when it is over `max_bytes` once decompressed, 415 for an encoding that is not gzip
    or deflate, 400 for damaged compressed data.
    """
    encoding = (request.header(CONTENT_ENCODING) or "identity").lower()
    return request.body if encoding == "identity" else _decompress(request.body, encoding, max_bytes)


def _decompress(data: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        raise RequestError(415, f"content-encoding {encoding[:40]!r} is not supported; use gzip or deflate")
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = inflater.decompress(data, max_bytes + 1)
    except zlib.error:
        raise RequestError(400, f"the body is not valid {encoding}") from None
    if len(plain) > max_bytes:
        raise RequestError(413, f"the request is larger than {max_bytes} bytes")
    if not inflater.eof or inflater.unused_data:
        raise RequestError(400, f"the body is not valid {encoding}")
    return plain
