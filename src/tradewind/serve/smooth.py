"""What was seen lately: a duration, a rate."""

import math


class Smooth:
    """An exponentially weighted mean of durations and of how far they were off it."""

    def __init__(self, weight: float = 0.1) -> None:
        self._weight = weight
        self._mean = 0.0
        self._deviation = 0.0
        self.bound_s = 0.0
        """What most stay under: the mean and two mean deviations."""

    def observe(self, seconds: float) -> None:
        error = seconds - self._mean
        self._mean += self._weight * error
        self._deviation += self._weight * (abs(error) - self._deviation)
        self.bound_s = self._mean + 2.0 * self._deviation


class Flow:
    """How many rows a second have come lately, seen over about `window_s`."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._rows = 0
        self._at_s: float | None = None
        self.per_s = 0.0

    def count(self, rows: int) -> None:
        self._rows += rows

    def settle(self, now: float) -> None:
        """Take what was counted since the last call into the rate."""
        if self._at_s is None:
            self._at_s = now
        passed_s = now - self._at_s
        if passed_s > 0:
            share = 1.0 - math.exp(-passed_s / self._window_s)
            self.per_s += share * (self._rows / passed_s - self.per_s)
            self._rows, self._at_s = 0, now
