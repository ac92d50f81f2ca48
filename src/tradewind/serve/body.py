"""Reading a request's body within its limits: size, decompressed size, time."""

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from tradewind.serve.errors import RequestError

READ_TIMEOUT_S = 30.0
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body, decompressed.

    Raises RequestError: 413 over `max_bytes` (before or after decompression), 408 when the client stalls,
    415 for an encoding that is not gzip or deflate, 400 for damaged compressed data.
    """
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > max_bytes:
        raise _too_large(max_bytes)
    encoding = request.headers.get("content-encoding", "identity").lower()
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            raw = await _collect(request, max_bytes)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive inside {READ_TIMEOUT_S:.0f} s") from None
    except ClientDisconnect:
        raise RequestError(400, "the client left before its body was complete") from None
    return raw if encoding in ("identity", "") else _decompress(raw, encoding, max_bytes)


async def _collect(request: Request, max_bytes: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _decompress(data: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        raise RequestError(415, f"content-encoding {encoding[:40]!r} is not supported; use gzip or deflate")
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = inflater.decompress(data, max_bytes + 1)
    except zlib.error:
        raise RequestError(400, f"the body is not valid {encoding}") from None
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not inflater.eof or inflater.unused_data:
        raise RequestError(400, f"the body is not valid {encoding}")
    return plain


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, f"the request is larger than {max_bytes} bytes")
