"""A response's body, compressed where the client asks for it and it is worth the time."""

import zlib

from tradewind.serve.http import Request, Response

MIN_BYTES = 1400
"""One packet: less is not worth it."""
MAX_BYTES = 1 << 18
"""More takes milliseconds, in which nothing else is answered; it is sent as it is."""
LEVEL = 1
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


def encoded(request: Request, response: Response) -> Response:
    """Return the response in the first of gzip and deflate that the client accepts, or as it is."""
    accepted = request.header(b"accept-encoding")
    size = memoryview(response.body).nbytes
    if accepted is None or response.status != 200 or not MIN_BYTES <= size <= MAX_BYTES:
        return response
    coding = next((coding for coding in _WINDOW_BITS if _accepts(accepted, coding)), None)
    if coding is None:
        return response
    deflater = zlib.compressobj(LEVEL, wbits=_WINDOW_BITS[coding])
    body = deflater.compress(response.body) + deflater.flush()
    headers = (*response.headers, ("content-encoding", coding), ("vary", "accept-encoding"))
    return response._replace(body=body, headers=headers)


def _accepts(accepted: str, coding: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() == coding:
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
