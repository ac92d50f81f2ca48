"""When searches are done again to measure recall, in idle time; and what they said, over all workers."""

from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

import structlog

from tradewind.retrieve.recall import WINDOW, recall_of
from tradewind.serve.audit import TIME_SHARE
from tradewind.serve.execution import Worker, WorkerLost
from tradewind.serve.metrics import Metrics
from tradewind.serve.wire import AUDIT, Call, Finding

log = structlog.get_logger()


class RecallAudits:
    """Which workers have searches to do again, how much time has gone into that, and the recall that was found."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: WeakKeyDictionary[Worker, int] = WeakKeyDictionary()
        self._recalls: dict[tuple[str, float], deque[float]] = {}
        self._began_s: float | None = None
        self._spent_s = 0.0
        self._done = 0

    def note(self, worker: Worker, due: int, now: float) -> None:
        """Take note of how many searches wait at a worker."""
        if due:
            self._began_s = now if self._began_s is None else self._began_s
            self._waiting[worker] = due
        else:
            self._waiting.pop(worker, None)

    def due(self, now: float) -> bool:
        """Whether a search waits, and there is time for it: of all time, no more than a small share goes there."""
        if not self._waiting or self._began_s is None:
            return False
        return not self._done or self._spent_s + self.expected_s(0.0) <= TIME_SHARE * (now - self._began_s)

    def waits_at(self, worker: Worker) -> bool:
        return worker in self._waiting

    def expected_s(self, unknown_s: float) -> float:
        """Return how long one takes; `unknown_s` before there was any."""
        return self._spent_s / self._done if self._done else unknown_s

    async def run_one(self, worker: Worker, clock: Callable[[], float]) -> None:
        """Have a worker do one search again, and learn from it; nothing where the worker dies."""
        start = clock()
        try:
            reply, _ = await worker.call(Call(AUDIT, ()), [])
        except WorkerLost:
            self.note(worker, 0, start)
            return
        self._spent_s += clock() - start
        self._done += 1
        self.note(worker, reply.due, start)
        if reply.finding is not None:
            self._learn(reply.finding)

    def _learn(self, finding: Finding) -> None:
        key = finding.plan, finding.allowed
        values = self._recalls.setdefault(key, deque(maxlen=WINDOW))
        values.append(finding.recall)
        self._metrics.observe_recall(recall_of(*key, values), finding.correction is not None)
        if finding.correction is not None:
            del self._recalls[key]
            log.warning("retrieval plan corrected", plan=finding.plan, correction=finding.correction)
