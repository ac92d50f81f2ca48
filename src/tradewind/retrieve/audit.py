"""Recall measured while serving: some searches are done again exactly, when the server has time.

Nothing here runs by itself. A server calls `run_one` while `due` says so, in idle time. Where the recall of a plan is
below the target with 95% confidence the plan is corrected there: twice as much is seen, in the end an exact scan.
"""

import math
import random
import threading
from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tradewind.retrieve import execute
from tradewind.retrieve.filters import Filter
from tradewind.retrieve.plan import Plan
from tradewind.retrieve.recall import WINDOW, Recall, recall_of
from tradewind.retrieve.segments import State

_ENOUGH = 20
_MOST_PENDING = 64
_LAST_FACTOR = 8.0
_EPSILON = 1e-5


class Sample(NamedTuple):
    """One query as it was answered: float32[1, D], and the scores float32[k] that its plan found in the base."""

    state: State
    plan: Plan
    query: npt.NDArray[np.float32]
    k: int
    wanted: Filter | None
    scores: npt.NDArray[np.float32]


class Finding(NamedTuple):
    """What one audit found; `correction` says what was changed, if anything."""

    plan: str
    band: float
    recall: float
    correction: str | None


class Audit:
    """Keeps a share of the approximate searches, and what redoing them exactly said. Safe to use from any thread."""

    def __init__(self, target: float, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"a share of searches is between 0 and 1, not {share}")
        self._target, self._share = target, share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._pending: deque[Sample] = deque(maxlen=_MOST_PENDING)
        self._recalls: dict[tuple[str, float], deque[float]] = {}
        self.corrections: dict[tuple[str, float], float] = {}

    def wants(self) -> bool:
        """Whether the next approximate search should be kept."""
        return self._share > 0 and self._random.random() < self._share

    def pick(self, num_queries: int) -> int:
        """Which of a batch to keep."""
        return self._random.randrange(num_queries)

    def keep(self, sample: Sample) -> None:
        """Keep a search to be audited; the oldest goes when too many wait."""
        with self._lock:
            self._pending.append(sample)

    def due(self) -> int:
        """How many searches wait to be done again."""
        return len(self._pending)

    def run_one(self) -> Finding | None:
        """Do one waiting search again exactly; None where none waits."""
        with self._lock:
            if not self._pending:
                return None
            sample = self._pending.popleft()
        exact = execute.scan(sample.state, sample.query, sample.k, sample.wanted).scores[0]
        return self._learn(sample.plan, recall_by_score(sample.scores, exact))

    def recalls(self) -> list[Recall]:
        """What is known, by plan and share of allowed items, since the plan was last corrected there."""
        with self._lock:
            return [recall_of(plan, band, values) for (plan, band), values in sorted(self._recalls.items())]

    def forget_waiting(self) -> None:
        """Drop searches of a base that is no longer used, so that its memory is free; what was learnt stays."""
        with self._lock:
            self._pending.clear()

    def _learn(self, plan: Plan, recall: float) -> Finding:
        key = plan.name, plan.band
        with self._lock:
            values = self._recalls.setdefault(key, deque(maxlen=WINDOW))
            values.append(recall)
            known = recall_of(*key, values)
            correction = None
            if known.n >= _ENOUGH and known.high < self._target:
                correction = self._correct(key, known)
        return Finding(*key, recall, correction)

    def _correct(self, key: tuple[str, float], known: Recall) -> str:
        factor = 2 * self.corrections.get(key, 1.0)
        if factor > _LAST_FACTOR:
            factor = math.inf
        self.corrections = {**self.corrections, key: factor}
        self._recalls.pop(key)
        change = "is not used there any more" if math.isinf(factor) else f"looks at {factor:g} times as much"
        return (
            f"recall of {key[0]} near {key[1]:.1%} allowed is {known.mean:.3f} "
            f"[{known.low:.3f}, {known.high:.3f}] over {known.n} searches, under {self._target}: it {change}"
        )


def recall_by_score(found: npt.NDArray[np.float32], exact: npt.NDArray[np.float32]) -> float:
    """The share of the exact answer that was found: items as good as its last count, whichever of equals they are."""
    real = exact[np.isfinite(exact)]
    if not len(real):
        return 1.0
    floor = real[-1] - _EPSILON * max(1.0, abs(float(real[-1])))
    return min(1.0, int(np.count_nonzero(found >= floor)) / len(real))
