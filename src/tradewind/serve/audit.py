"""Which degraded answers are made again at the full level, to measure what was lost: some, and only in idle time."""

from collections import deque
from typing import NamedTuple

from tradewind.serve.jobs import Prepared
from tradewind.serve.lanes import Lane, Tensors

EVERY = 20
"""One degraded answer in so many is kept to be made again."""
KEPT = 64
MAX_BYTES = 1 << 16
TIME_SHARE = 0.01
"""Of the time since the first sample, what making answers again may take."""


class Sample(NamedTuple):
    """A degraded answer, and the request that it answered."""

    lane: Lane
    level: str
    prepared: Prepared
    tensors: Tensors


class Audits:
    """The newest samples, and how much time has gone into them."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._seen = 0
        self._began_s: float | None = None
        self._spent_s = 0.0

    def offer(self, sample: Sample, now: float) -> None:
        """Take note of a degraded answer; one in `EVERY` is kept, unless it is large."""
        self._seen += 1
        size = sum(memoryview(t.data).nbytes for t in sample.prepared.tensors.values())
        if self._seen % EVERY == 1 and sample.prepared.rows == 1 and size <= MAX_BYTES:
            self._began_s = now if self._began_s is None else self._began_s
            self._samples.append(sample)

    def due(self, now: float) -> Sample | None:
        """Return the sample to make again now, if there is one and time for it."""
        if not self._samples or self._began_s is None:
            return None
        sample = self._samples[-1]
        cost_s = sample.lane.levels[0].profile.latency_s(1)
        if self._spent_s and self._spent_s + cost_s > TIME_SHARE * (now - self._began_s):
            return None
        return sample

    def begin(self, sample: Sample) -> None:
        """Take a sample out to make it again."""
        self._samples.remove(sample)

    def spent(self, seconds: float) -> None:
        self._spent_s += seconds
