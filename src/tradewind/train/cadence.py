"""How often to do something that costs training time, given what it was measured to cost."""

import math

_WEIGHT = 0.2
"""Of the newest measurement in the moving averages."""


class Cadence:
    """Steps between two stagings so that they take at most `share` of the time.

    Each worker measures for itself; the workers then go by the largest of their intervals, so that all
    stage after the same steps.
    """

    def __init__(self, share: float, most: int) -> None:
        self._share = share
        self._most = most
        self._cost_s: float | None = None
        self.step_s: float | None = None
        """How long a step takes of late; None before the first."""

    def step_took(self, seconds: float) -> None:
        """Take in how long a step took, the staging apart."""
        self.step_s = _follow(self.step_s, seconds)

    def staging_took(self, seconds: float) -> None:
        """Take in what one staging cost."""
        self._cost_s = _follow(self._cost_s, seconds)

    @property
    def interval(self) -> int:
        """Steps from one staging to the next, at least 1 and at most `most`."""
        if self._cost_s is None or not self.step_s:
            return 1
        return max(1, min(self._most, math.ceil(self._cost_s / (self._share * self.step_s))))


def _follow(average: float | None, value: float) -> float:
    return value if average is None else average + _WEIGHT * (value - average)
