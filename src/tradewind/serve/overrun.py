"""A batch that runs longer than it should: those of its requests that need not wait for it are answered without it."""

import asyncio
from collections.abc import Callable, Sequence

from tradewind.serve.jobs import Job

TICK_S = 1e-3
"""Timers of the event loop count in milliseconds, and may be half of one early."""


class Overrun:
    """Hands out the requests of a running batch that accept an answer without a worker, each when it is due.

    That is when the batch had to have ended for it. What is kept of its budget for such an answer is still there then,
    however long the batch goes on.
    """

    def __init__(
        self, batch: Sequence[Job], clock: Callable[[], float], answer: Callable[[list[Job]], None]
    ) -> None:
        self._waiting = sorted((job for job in batch if job.instant), key=lambda job: job.due_s)
        self._clock = clock
        self._answer = answer
        self._timer: asyncio.TimerHandle | None = None
        self._set()

    def cancel(self) -> None:
        """Hand out no more: the batch has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self) -> None:
        if self._waiting:
            delay_s = max(self._waiting[0].due_s - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_due)

    def _on_due(self) -> None:
        by_s = self._clock() + TICK_S / 2
        due = [job for job in self._waiting if job.due_s <= by_s]
        self._waiting = self._waiting[len(due) :]
        if due:
            self._answer(due)
        self._set()
