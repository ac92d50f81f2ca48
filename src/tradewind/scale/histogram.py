"""A mergeable histogram with a stated relative precision and constant cost per value."""

import math
from collections.abc import Iterator
from typing import Any

_UNITS_PER_MS = 1000


class Histogram:
    """Counts of non-negative milliseconds in log-linear buckets (Tene, HdrHistogram).

    Values are rounded up to whole microseconds. Every power of two is cut into `2**bits` equal
    buckets, so a reported quantile is at most `2**-bits` (relative) above the recorded value and
    never below it.
    """

    def __init__(self, bits: int = 8) -> None:
        self.bits = bits
        self.count = 0
        self.sum_ms = 0.0
        self.max_ms = 0.0
        self._buckets: dict[int, int] = {}

    @property
    def precision(self) -> float:
        """Largest relative error of a reported quantile."""
        return 2.0**-self.bits

    def record(self, value_ms: float, times: int = 1) -> None:
        """Counts `value_ms`; a negative value is counted as 0."""
        value_ms = max(value_ms, 0.0)
        units = math.ceil(value_ms * _UNITS_PER_MS)
        shift = max(units.bit_length() - self.bits - 1, 0)
        index = (shift << self.bits) + (units >> shift)
        self._buckets[index] = self._buckets.get(index, 0) + times
        self.count += times
        self.sum_ms += value_ms * times
        self.max_ms = max(self.max_ms, value_ms)

    def quantile(self, q: float) -> float:
        """The smallest bucket top, in ms, that at least a share `q` of values do not exceed; 0 if empty."""
        rank = max(math.ceil(q * self.count), 1)
        seen = 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= rank:
                return min(self._top(index), self.max_ms)
        return 0.0

    def share_within(self, limit_ms: float) -> float:
        """Share of values in buckets that lie wholly at or below `limit_ms`; 1 if empty."""
        within = sum(count for index, count in self._buckets.items() if self._top(index) <= limit_ms)
        return within / self.count if self.count else 1.0

    @property
    def mean_ms(self) -> float:
        """Mean of the values as recorded, without bucket error; 0 if empty."""
        return self.sum_ms / self.count if self.count else 0.0

    def merge(self, other: "Histogram") -> None:
        """Adds the other's counts; both must have the same `bits`."""
        if other.bits != self.bits:
            raise ValueError(f"cannot merge histograms of {other.bits} and {self.bits} bits")
        for index, times in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + times
        self.count += other.count
        self.sum_ms += other.sum_ms
        self.max_ms = max(self.max_ms, other.max_ms)

    def bins(self) -> Iterator[tuple[float, int]]:
        """Non-empty buckets as `(top in ms, count)`, lowest first."""
        for index in sorted(self._buckets):
            yield self._top(index), self._buckets[index]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form that `from_dict` reads back."""
        buckets = [[index, self._buckets[index]] for index in sorted(self._buckets)]
        return {"bits": self.bits, "sum_ms": self.sum_ms, "max_ms": self.max_ms, "buckets": buckets}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Histogram":
        """The histogram that `to_dict` wrote."""
        histogram = cls(int(data["bits"]))
        histogram._buckets = {int(index): int(count) for index, count in data["buckets"]}
        histogram.count = sum(histogram._buckets.values())
        histogram.sum_ms, histogram.max_ms = float(data["sum_ms"]), float(data["max_ms"])
        return histogram

    def _top(self, index: int) -> float:
        shift = max((index >> self.bits) - 1, 0)
        units = index - (shift << self.bits)
        return (((units + 1) << shift) - 1) / _UNITS_PER_MS
