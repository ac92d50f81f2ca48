"""When requests are due: arrival times fixed before the first request is sent."""

import random
from array import array
from collections.abc import Callable

from tradewind.errors import SpecError

Schedule = Callable[[float, float, int], "array[float]"]


def poisson(rate: float, duration_s: float, seed: int = 0) -> "array[float]":
    """Arrival offsets in seconds of a Poisson process: independent users, exponential gaps.

    The same `(rate, duration_s, seed)` gives the same arrivals on every machine.
    """
    _check(rate, duration_s)
    gap = random.Random(seed).expovariate
    arrivals = array("d")
    at = gap(rate)
    while at < duration_s:
        arrivals.append(at)
        at += gap(rate)
    return arrivals


def constant(rate: float, duration_s: float, seed: int = 0) -> "array[float]":
    """Arrival offsets in seconds with equal gaps; `seed` is accepted and has no effect."""
    _check(rate, duration_s)
    return array("d", (index / rate for index in range(int(rate * duration_s))))


SCHEDULES: dict[str, Schedule] = {"poisson": poisson, "constant": constant}


def _check(rate: float, duration_s: float) -> None:
    if not (0 < rate < float("inf") and 0 < duration_s < float("inf")):
        raise SpecError(
            f"load schedule: rate {rate} per second over {duration_s} s; both must be above zero and finite"
        )
