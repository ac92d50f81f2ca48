"""How long a batch takes, per batch size: measured at start-up, kept current while serving."""

import bisect
import itertools
import statistics
from collections.abc import Callable, Mapping

OUTLIER = 3.0
WORTH = 0.95
"""Share of what the model can do at best that it has to do in batches that are kept small, or sent ahead."""


def batch_sizes(max_batch: int) -> list[int]:
    """Return the powers of two up to `max_batch`, and `max_batch` itself."""
    sizes = [1 << i for i in range(max_batch.bit_length()) if 1 << i <= max_batch]
    return sizes if sizes[-1] == max_batch else [*sizes, max_batch]


def measure(
    run: Callable[[int], object], sizes: list[int], clock: Callable[[], float], repeats: int = 5
) -> dict[int, float]:
    """Return the median seconds that `run(size)` takes for each size, after one warm-up call each; none of no repeats."""
    profile = {}
    for size in sizes:
        run(size)
        seconds = []
        for _ in range(repeats):
            start = clock()
            run(size)
            seconds.append(clock() - start)
        if seconds:
            profile[size] = statistics.median(seconds)
    return profile


class Profile:
    """Latency by batch size: exponentially weighted mean and deviation, interpolated, never decreasing.

    The mean says how fast work drains; `bound_s` adds two mean deviations and says what to promise.
    """

    def __init__(self, points: Mapping[int, float], weight: float = 0.1) -> None:
        self._sizes = sorted(points)
        self.max_batch = self._sizes[-1]
        self._mean = list(itertools.accumulate((points[n] for n in self._sizes), max))
        self._deviation = [0.1 * mean for mean in self._mean]
        self._weight = weight
        self._near = [_near(size, self._sizes) for size in range(self.max_batch + 1)]
        self.fastest_s = self._mean[0]
        """The fastest run that was seen, of any size."""
        self.full_s = self.row_s = 0.0
        """`bound_s` of the largest batch, and what a row takes in it: asked of every request, so kept at hand."""
        self.worth_rows = 1
        """Rows that a batch needs for the model to do nearly as much in such batches as it can at best; kept at hand as well."""
        self._keep_at_hand()

    @property
    def points(self) -> dict[int, float]:
        """Current mean seconds at each measured batch size."""
        return dict(zip(self._sizes, self._mean, strict=True))

    def latency_s(self, size: int) -> float:
        """Return the expected seconds of a batch of `size` rows."""
        return self._between(self._mean, size)

    def bound_s(self, size: int) -> float:
        """Return the seconds that a batch of `size` rows should stay under."""
        return self._between(self._mean, size) + self.spread_s(size)

    def spread_s(self, size: int) -> float:
        """Return how far from what is expected most batches of `size` rows end."""
        return 2.0 * self._between(self._deviation, size)

    def largest_within(self, budget_s: float, limit: int) -> int:
        """Return the largest batch, at most `limit`, whose bound fits `budget_s`; 0 when none does."""
        sizes = range(1, min(limit, self.max_batch) + 1)
        return bisect.bisect_right(sizes, budget_s, key=self.bound_s)

    def observe(self, size: int, seconds: float) -> None:
        """Take in one measured batch; the measured sizes on either side move in proportion to nearness.

        One stall says little about the next batch, so that no single run counts for more than `OUTLIER` times what
        was expected; a lasting slow-down is followed all the same, within a few batches.
        """
        self.fastest_s = min(self.fastest_s, seconds)
        expected = self.latency_s(size)
        error = min(seconds, OUTLIER * expected) - expected
        below, above, share = self._near[min(size, self.max_batch)]
        for i, near in ((below, 1.0 - share), (above, share)):
            step = self._weight * near
            self._move(self._mean, i, self._mean[i] + step * error)
            self._move(self._deviation, i, self._deviation[i] + step * (abs(error) - self._deviation[i]))
        self._keep_at_hand()

    def no_slower_than(self, other: "Profile") -> None:
        """Take in that this has less to do than `other`, which was measured later: it takes no longer now."""
        for i, size in enumerate(self._sizes):
            self._mean[i] = min(self._mean[i], other.latency_s(size))
            self._deviation[i] = min(self._deviation[i], other.spread_s(size) / 2.0)
        self._keep_at_hand()

    def _keep_at_hand(self) -> None:
        self.full_s = self.bound_s(self.max_batch)
        self.row_s = self.latency_s(self.max_batch) / self.max_batch
        self.worth_rows = self.worth_within(self.max_batch)

    def worth_within(self, limit: int) -> int:
        """Return how many rows a batch needs for the model to do nearly as much as in its best one of at most `limit`.

        Between two measured sizes rows a second only rise or only fall, and beyond the best size they may fall.
        """
        sizes = [*self._sizes[: bisect.bisect_left(self._sizes, limit)], limit]
        rates = [rows / self.latency_s(rows) for rows in sizes]
        enough = WORTH * max(rates)
        first = next(i for i, rate in enumerate(rates) if rate >= enough)
        below = range(sizes[first - 1] + 1 if first else 1, sizes[first])
        return below.start + bisect.bisect_left(below, enough, key=lambda rows: rows / self.latency_s(rows))

    def _between(self, levels: list[float], size: int) -> float:
        if size > self.max_batch:
            return levels[-1] * size / self.max_batch
        below, above, share = self._near[size]
        return levels[below] + share * (levels[above] - levels[below])

    def _move(self, levels: list[float], i: int, value: float) -> None:
        """Set a level. What was measured now corrects what was measured before: no smaller batch is slower."""
        levels[i] = value = max(value, 1e-6)
        for j in range(i):
            levels[j] = min(levels[j], value)
        for j in range(i + 1, len(levels)):
            levels[j] = max(levels[j], value)


def _near(size: int, sizes: list[int]) -> tuple[int, int, float]:
    """Return the measured sizes below and above `size`, by index, and how far `size` is on the way between."""
    above = min(bisect.bisect_left(sizes, size), len(sizes) - 1)
    below = max(above - 1, 0)
    if sizes[above] <= size or above == below:
        return above, above, 0.0
    return below, above, (size - sizes[below]) / (sizes[above] - sizes[below])
