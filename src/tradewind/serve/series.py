"""Series that cost little to add to: one thread, no locks; the bounds of histograms are searched by halves."""

import bisect
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counts(Collector):
    """A counter by its labels' values."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._counts: dict[tuple[object, ...], int] = {}
        registry.register(self)

    def inc(self, *values: object) -> None:
        """Count one more of these values, in the order of the labels."""
        self._counts[values] = self._counts.get(values, 0) + 1

    def describe(self) -> list[Metric]:
        return [Metric(self._name, self._text, "counter")]

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._text, "counter")
        for values, count in self._counts.items():
            labels = dict(zip(self._labels, map(str, values), strict=True))
            metric.add_sample(self._name + "_total", labels, float(count))
        yield metric


class Observed:
    """The values of one label."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many were in each bucket and not in the one before; in the last, over every bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


class Histograms(Collector):
    """A histogram for each value of one label, as Prometheus has them: a bucket holds what is at most its bound."""

    def __init__(
        self, name: str, text: str, label: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = tuple(map(float, bounds))
        self._names = [*map(floatToGoString, self._bounds), "+Inf"]
        self._observed: dict[str, Observed] = {}
        registry.register(self)

    def of(self, value: str) -> Observed:
        """Return the histogram of a label's value."""
        found = self._observed.get(value)
        if found is None:
            found = self._observed[value] = Observed(self._bounds)
        return found

    def describe(self) -> list[Metric]:
        return [Metric(self._name, self._text, "histogram")]

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._text, "histogram")
        for value, observed in self._observed.items():
            labels, so_far = {self._label: value}, 0
            for name, count in zip(self._names, observed.counts, strict=True):
                so_far += count
                metric.add_sample(self._name + "_bucket", {**labels, "le": name}, float(so_far))
            metric.add_sample(self._name + "_count", labels, float(so_far))
            metric.add_sample(self._name + "_sum", labels, observed.total)
        yield metric
