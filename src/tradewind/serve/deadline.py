"""How long a request may take: its own header, else the endpoint's SLO."""

import functools
import math

from tradewind import names
from tradewind.serve.errors import RequestError

MAX_BUDGET_S = 3600.0


def budget_s(header_ms: str | None, slo_ms: float, timeout_us: int | None = None) -> float:
    """Return a request's budget in seconds: the smallest of what the client stated, else the SLO.

    `header_ms` is the value of `x-deadline-ms`; `timeout_us` is the v2 parameter `timeout`, where 0
    means none. Raises `RequestError` (400) when the header is not a positive finite number.
    """
    stated = []
    if header_ms is not None:
        stated.append(_positive_ms(header_ms) / 1e3)
    if timeout_us:
        stated.append(timeout_us / 1e6)
    return min(*stated, MAX_BUDGET_S) if stated else slo_ms / 1e3


@functools.lru_cache(maxsize=256)
def _positive_ms(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RequestError(400, f"{names.HEADER_DEADLINE} must be a positive number of milliseconds")
    return value
