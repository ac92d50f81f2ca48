"""How long a batch takes, per batch size: measured at start-up, kept current while serving."""

import statistics
from collections.abc import Callable, Mapping


def batch_sizes(max_batch: int) -> list[int]:
    """Return the powers of two up to `max_batch`, and `max_batch` itself."""
    sizes = [1 << i for i in range(max_batch.bit_length()) if 1 << i <= max_batch]
    return sizes if sizes[-1] == max_batch else [*sizes, max_batch]


def measure(
    run: Callable[[int], object], sizes: list[int], clock: Callable[[], float], repeats: int = 5
) -> dict[int, float]:
    """Return the median seconds that `run(size)` takes for each size, after one warm-up call each."""
    profile = {}
    for size in sizes:
        run(size)
        seconds = []
        for _ in range(repeats):
            start = clock()
            run(size)
            seconds.append(clock() - start)
        profile[size] = statistics.median(seconds)
    return profile


class Profile:
    """Latency by batch size: exponentially weighted mean and deviation, interpolated, never decreasing.

    The mean says how fast work drains; `bound_s` adds two mean deviations and says what to promise.
    """

    def __init__(self, points: Mapping[int, float], weight: float = 0.1) -> None:
        self._sizes = sorted(points)
        self._mean = {n: points[n] for n in self._sizes}
        self._deviation = {n: 0.1 * points[n] for n in self._sizes}
        self._weight = weight
        self._tabulate()

    @property
    def max_batch(self) -> int:
        return self._sizes[-1]

    @property
    def points(self) -> dict[int, float]:
        """Current mean seconds at each measured batch size."""
        return dict(self._mean)

    def latency_s(self, size: int) -> float:
        """Return the expected seconds of a batch of `size` rows."""
        return self._means[min(size, self.max_batch)] * max(1.0, size / self.max_batch)

    def bound_s(self, size: int) -> float:
        """Return the seconds that a batch of `size` rows should stay under."""
        return self._bounds[min(size, self.max_batch)] * max(1.0, size / self.max_batch)

    def largest_within(self, budget_s: float, limit: int) -> int:
        """Return the largest batch, at most `limit`, whose bound fits `budget_s`; 0 when none does."""
        size = min(limit, self.max_batch)
        while size and self._bounds[size] > budget_s:
            size -= 1
        return size

    def observe(self, size: int, seconds: float) -> None:
        """Take in one measured batch; the measured sizes on either side move in proportion to nearness."""
        for point, near in self._neighbours(size):
            expected = self.latency_s(size)
            step = self._weight * near
            error = seconds - expected
            self._deviation[point] += step * (abs(error) - self._deviation[point])
            self._mean[point] = max(1e-6, self._mean[point] + step * error)
        self._tabulate()

    def _neighbours(self, size: int) -> list[tuple[int, float]]:
        below = max((n for n in self._sizes if n <= size), default=self._sizes[0])
        above = min((n for n in self._sizes if n >= size), default=self._sizes[-1])
        if below == above:
            return [(below, 1.0)]
        share = (size - below) / (above - below)
        return [(below, 1.0 - share), (above, share)]

    def _tabulate(self) -> None:
        self._means = self._table(self._mean)
        spread = self._table(self._deviation)
        self._bounds = [m + 2.0 * d for m, d in zip(self._means, spread, strict=True)]

    def _table(self, points: Mapping[int, float]) -> list[float]:
        table = [0.0] * (self.max_batch + 1)
        value = 0.0
        for size in range(1, self.max_batch + 1):
            value = max(value, sum(points[n] * near for n, near in self._neighbours(size)))
            table[size] = value
        return table
