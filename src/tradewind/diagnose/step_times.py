"""How long a run's steps take, learnt from the run itself."""

import bisect
from collections import deque


class StepTimes:
    """Quantiles over the last `window` step durations of a group that steps together.

    The first rank to complete a step ends it for the group; later ones add nothing, so memory and
    work do not grow with the number of ranks.
    """

    def __init__(self, window: int = 1000) -> None:
        self._window = window
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._step: int | None = None
        self._at_s: float | None = None

    def __len__(self) -> int:
        return len(self._sorted)

    def complete(self, step: int, t_s: float, *, typical: bool = True) -> bool:
        """Note that a step was completed; False when the group was that far already.

        `typical` is False for a step that held a declared slow phase: it says nothing of the others.
        """
        if self._step is not None and step <= self._step:
            return False
        if typical and self._step is not None and self._at_s is not None and t_s >= self._at_s:
            self._add((t_s - self._at_s) / (step - self._step))
        self._step, self._at_s = step, t_s
        return True

    def interrupt(self) -> None:
        """The group was interrupted: the time until its next step is no step's, and steps may repeat."""
        self._step = self._at_s = None

    def _add(self, duration_s: float) -> None:
        self._order.append(duration_s)
        bisect.insort(self._sorted, duration_s)
        if len(self._order) > self._window:
            del self._sorted[bisect.bisect_left(self._sorted, self._order.popleft())]

    def quantile(self, share: float) -> float:
        """The duration that this share of the steps does not exceed; 0 when none are known."""
        if not self._sorted:
            return 0.0
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    @property
    def longest(self) -> float:
        """The longest duration in the window; 0 when none are known."""
        return self._sorted[-1] if self._sorted else 0.0
