"""What became of each request while a run lasts: a few bytes each, counted up afterwards."""

from array import array
from collections import Counter

PENDING, IN_TIME, LATE, REFUSED, ERROR = range(5)
"""What a request is, in `Recorder.outcomes`."""
_REFUSALS = (429, 503)


class Recorder:
    """Outcome, latency and the generator's own lag of every request, by its number."""

    def __init__(self, count: int) -> None:
        self.outcomes = bytearray(count)
        self.latency_ms = array("f", bytes(4 * count))
        """From the due instant to the answer, or to where it was given up; -1 where neither says anything."""
        self.lag_ms = array("f", bytes(4 * count))
        self.sent = bytearray(count)
        self.starved = bytearray(count)
        self._statuses: dict[int, str] = {}
        self.so_far: Counter[int] = Counter()
        """Requests by outcome, warm-up included; for whoever watches."""

    def answered(self, number: int, status: int, latency_ms: float, deadline_ms: float) -> None:
        """A whole answer came."""
        if 200 <= status < 300:
            outcome = IN_TIME if latency_ms <= deadline_ms else LATE
        else:
            outcome = REFUSED if status in _REFUSALS else ERROR
        if status != 200:
            self._statuses[number] = str(status)
        self._set(number, outcome, -1.0 if outcome == ERROR else latency_ms)

    def failed(self, number: int, why: str, age_ms: float = -1.0) -> None:
        """No answer came; `age_ms` is how long it was waited for, where that was the reason."""
        self._statuses[number] = why
        self._set(number, ERROR, age_ms)

    def status_of(self, number: int) -> str:
        """The status that came, or what happened instead."""
        return self._statuses.get(number, "200")

    def _set(self, number: int, outcome: int, latency_ms: float) -> None:
        self.outcomes[number] = outcome
        self.latency_ms[number] = latency_ms
        self.so_far[outcome] += 1
