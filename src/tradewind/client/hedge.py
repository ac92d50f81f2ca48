"""When a second request is sent for a call whose first is slower than usual (Dean, Barroso: The Tail at Scale)."""

import math
from collections import deque

from tradewind.client.budget import Budget

WINDOW = 256
LEAST = 32
"""Calls that must have been seen before anything is called slow."""
LEAST_DELAY_S = 1e-3
"""A hedge costs about as much as waiting for so long."""
_REFRESH = 16


class Hedging:
    """The delay after which to hedge, a quantile of recent answers, and the budget that bounds hedges."""

    def __init__(self, share: float, quantile: float = 0.95) -> None:
        self._budget = Budget(share, reserve=2.0)
        self._on = share > 0
        self._quantile = quantile
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._seen = 0
        self._delay_s: float | None = None

    def begin(self) -> float | None:
        """A call begins: seconds after which it may be hedged; None when not at all."""
        if not self._on:
            return None
        self._budget.earn()
        return self._delay_s if self._budget.tokens >= 1 - 1e-9 else None

    def allow(self) -> bool:
        """Take the token of one hedge."""
        return self._budget.spend()

    def observe(self, seconds: float) -> None:
        """The first request of a call took so long, or at least so long when its hedge was faster."""
        if not self._on:
            return
        self._recent.append(seconds)
        self._seen += 1
        if self._seen >= LEAST and self._seen % _REFRESH == 0:
            self._delay_s = max(nearest_rank(self._recent, self._quantile), LEAST_DELAY_S)


def nearest_rank(values: "deque[float]", quantile: float) -> float:
    """The smallest value that a share `quantile` of the values do not exceed."""
    return sorted(values)[max(math.ceil(quantile * len(values)), 1) - 1]
