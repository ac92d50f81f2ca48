"""Durations and latency targets as people write them."""

import math
import re

from tradewind.errors import SpecError
from tradewind.spec.endpoint import SLO

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(us|ms|s|m|h|d)")


def parse_duration_s(text: str) -> float:
    """Seconds in `20s`, `5m`, `500ms` or `1.5h`; raises SpecError without a unit or for zero."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        units = ", ".join(_SECONDS)
        raise SpecError(
            f"{text!r} is not a duration: write a positive number and a unit ({units}), as in 500ms"
        )
    return seconds


def parse_slo(text: str) -> SLO:
    """The SLO that `50ms` or `p99.9<50ms` stands for; the percentile is 99 when not given."""
    match = re.fullmatch(r"(?:p(\d+(?:\.\d+)?)\s*<=?\s*)?(.+)", text.strip())
    if match is None:
        raise SpecError("an SLO cannot be empty: write a latency, as in 50ms or p99.9<50ms")
    latency_ms = round(parse_duration_s(match[2]) * 1e3, 9)
    return SLO(latency_ms=latency_ms, percentile=float(match[1] or 99.0))
