"""How offered load rises and falls over a run: a rate that is a piecewise linear function of time."""

import itertools
import math
import random
from array import array
from typing import NamedTuple

from tradewind.errors import SpecError

Knot = tuple[float, float]
"""(share of the duration, multiple of the base rate); two knots at one instant are a jump."""


class Phase(NamedTuple):
    """A named part of a shape, as shares of the duration."""

    name: str
    begin: float
    end: float


class Shape(NamedTuple):
    """The knots of a rate, and the phases that are reported one by one."""

    knots: tuple[Knot, ...]
    phases: tuple[Phase, ...]


def make_shape(name: str, peak: float) -> Shape:
    """The shape of that name whose highest rate is `peak` times the base rate.

    `steady`; `step`: a third each at 1x, peak, 1x; `spike`: peak for a tenth; `ramp`: rising to peak over 80%;
    `black-friday`: a shop's day, with its doors opening at peak and a second crest in the evening. Raises
    SpecError for another name or a peak that is none.
    """
    if name not in SHAPES:
        raise SpecError(f"--shape {name}: there is no such shape; one of {', '.join(SHAPES)}")
    if not 0 < peak < math.inf:
        raise SpecError(f"--peak {peak}: the highest rate as a multiple of the base rate, above zero")
    return SHAPES[name](peak)


def _steady(peak: float) -> Shape:
    return Shape(((0, 1), (1, 1)), (Phase("all", 0, 1),))


def _box(begin: float, end: float, peak: float) -> Shape:
    knots = ((0, 1), (begin, 1), (begin, peak), (end, peak), (end, 1), (1, 1))
    return Shape(knots, (Phase("before", 0, begin), Phase("peak", begin, end), Phase("after", end, 1)))


def _step(peak: float) -> Shape:
    return _box(1 / 3, 2 / 3, peak)


def _spike(peak: float) -> Shape:
    return _box(0.45, 0.55, peak)


def _ramp(peak: float) -> Shape:
    return Shape(((0, 1), (0.8, peak), (1, peak)), (Phase("rise", 0, 0.8), Phase("top", 0.8, 1)))


def _black_friday(peak: float) -> Shape:
    knots = (
        (0.0, 0.3), (0.15, 0.3), (0.3, 1.0), (0.4, 1.0), (0.4, peak), (0.5, 0.7 * peak), (0.75, 0.6 * peak),
        (0.8, 0.85 * peak), (0.88, 0.5 * peak), (1.0, 0.5),
    )  # fmt: skip
    names = ("night", "morning", "doors", "day", "evening", "close")
    borders = (0.0, 0.15, 0.4, 0.5, 0.75, 0.88, 1.0)
    return Shape(knots, tuple(map(Phase, names, borders, borders[1:])))


SHAPES = {"steady": _steady, "step": _step, "spike": _spike, "ramp": _ramp, "black-friday": _black_friday}


def shaped_poisson(rate: float, duration_s: float, seed: int, knots: tuple[Knot, ...]) -> "array[float]":
    """Arrival offsets in seconds of an inhomogeneous Poisson process, fixed by the seed.

    Exact: unit-rate arrivals are mapped through the inverse of the integral of the rate (Cinlar 1975).
    """
    gap = random.Random(seed).expovariate
    arrivals, at, before = array("d"), gap(1.0), 0.0
    for (share0, low), (share1, high) in itertools.pairwise(knots):
        begin_s, length_s = share0 * duration_s, (share1 - share0) * duration_s
        first, last = rate * low, rate * high
        mass = (first + last) / 2 * length_s
        while at < before + mass:
            arrivals.append(begin_s + _invert(at - before, first, last, length_s))
            at += gap(1.0)
        before += mass
    return arrivals


def _invert(mass: float, first: float, last: float, length_s: float) -> float:
    """When a rate that goes from `first` to `last` in `length_s` has let through `mass`."""
    slope = (last - first) / length_s
    return 2 * mass / (first + math.sqrt(max(first * first + 2 * slope * mass, 0.0)))


def highest(shape: Shape) -> float:
    """The largest multiple of the base rate."""
    return max(multiple for _, multiple in shape.knots)
