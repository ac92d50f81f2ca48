"""How long another host may be silent before it is given up: learnt from how long it has been silent while it was there."""

LONGEST_S = 2.0
"""Nobody is waited for longer, and whoever is not known yet is waited for as long."""
_TIMES = 3.0
"""So many times its longest silence ends a lease."""
_WINDOW_S = 10.0
"""A silence counts for one to two of these."""


class Lease:
    """One host's, over all its connections: at least `least_s`. Times are on the monotonic clock.

    A host that turns out to have been there all along was given up too early: from then on it is waited for
    twice as long, up to `LONGEST_S`.
    """

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._longest_s = self._before_s = 0.0
        self._is_known = False
        self._until: float | None = None

    @property
    def seconds(self) -> float:
        """How long it may be silent."""
        if not self._is_known:
            return LONGEST_S
        longest_s = max(self._longest_s, self._before_s)
        return min(LONGEST_S, max(self._least_s, _TIMES * longest_s))

    def begin(self, now: float) -> None:
        """A connection began: what was before is no silence of it."""
        self._until = now + _WINDOW_S

    def heard(self, silent_s: float, now: float) -> None:
        """It was heard again after so long."""
        self._longest_s = max(self._longest_s, silent_s)
        if self._until is not None and now >= self._until:
            self._before_s, self._longest_s = self._longest_s, 0.0
            self._is_known = True
            self._until = now + _WINDOW_S

    def was_too_short(self) -> None:
        """It was given up and had been there."""
        self._least_s = min(LONGEST_S, 2 * self.seconds)
