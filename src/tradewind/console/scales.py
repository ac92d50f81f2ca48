"""From values to pixels, and the round numbers that axes are marked with."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Axis(NamedTuple):
    """Maps values in `[low, high]` to pixels in `[start, end]`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, kept inside the axis."""
        low, high, value = (
            math.log10(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value)
        )
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside `[low, high]`, about `count`."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten times 1, 2 and 5 inside `[low, high]`, thinned to at most eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**p for p in powers for m in multiples if low <= m * 10.0**p <= high]
        if len(found) <= 8:
            break
    return found


def linear_axis(values: Sequence[float], start: float, end: float, zero: bool = False) -> Axis:
    """An axis that covers the values with a little air; from 0 when `zero`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    if high <= low:
        high, low = high + (abs(high) * 0.1 or 1.0), low - (0.0 if zero else abs(low) * 0.1 or 1.0)
    air = (high - low) * 0.06
    return Axis(low if zero else low - air, high + air, start, end)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis that covers the positive values with a little air."""
    positive = [value for value in values if value > 0] or [1.0]
    return Axis(min(positive) / 1.6, max(positive) * 1.6, start, end, log=True)


def number(value: float) -> str:
    """A value as an axis or a table shows it: three significant digits, k and M for thousands."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            divisor = 1e3 if unit == "k" else limit
            return f"{value / divisor:.3g}{unit}"
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:.4g}"


def seconds(value: float) -> str:
    """A length of time as a person says it."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def percent(share: float) -> str:
    """A share with one decimal, and never `100%` for less than all."""
    return f"{share:.0%}" if share in (0, 1) else f"{min(share, 0.999):.1%}"


def plural(count: int, noun: str) -> str:
    """`1 attempt`, `2 attempts`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clock(value: float) -> str:
    """An instant on a time axis: `0`, `45 s`, `1:30`, `2:05:00`."""
    if value < 60:
        return f"{value:g} s" if value else "0"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_ticks(end: float, count: int = 10) -> list[float]:
    """Round instants from 0 to `end`: whole seconds, minutes or hours apart when the span is long."""
    if end <= 60:
        return ticks(0, end, count)
    steps = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((step for step in steps if end / step <= count), 86400 * math.ceil(end / 86400 / count))
    return [float(at) for at in range(0, math.floor(end) + 1, step)]


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most `most` points that keep every visible extreme: the lowest and highest of each stretch."""
    if len(points) <= most:
        return list(points)
    by_value: Callable[[tuple[float, float]], float] = lambda point: point[1]  # noqa: E731
    kept: list[tuple[float, float]] = [points[0]]
    stretches = (most - 2) // 2
    for at in range(stretches):
        part = points[at * len(points) // stretches : (at + 1) * len(points) // stretches]
        kept += sorted({min(part, key=by_value), max(part, key=by_value)})
    return [*kept, points[-1]]
