"""Preemption: SIGTERM asks a run to commit its state and leave with the requeue code."""

import math
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from tradewind import names

MARGIN, LEAST_S = 1.5, 1.0
"""A write may take this many times as long as the last one did, and so many seconds more."""


def fits(cost_s: float | None, left_s: float) -> bool:
    """Whether to begin what took `cost_s` before, with `left_s` until the end; what was never done is tried."""
    return cost_s is None or MARGIN * cost_s + LEAST_S <= left_s


class Preemption:
    """Notices SIGTERM; the loop makes all workers stop after the same step."""

    def __init__(self) -> None:
        self.asked = False
        """Whether this worker was told to leave."""
        self._asked_s = 0.0
        self._grace_s = float(os.environ.get(names.ENV_GRACE, math.inf))
        self._pid = os.getpid()
        self._before: Any = None

    def listen(self) -> None:
        """Take over SIGTERM, where this is the main thread (only there can a handler be set)."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)

    def unlisten(self) -> None:
        """Give SIGTERM back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    @property
    def left_s(self) -> float:
        """Seconds until this worker is killed; infinite where it was not told to leave, or nobody said."""
        return self._asked_s + self._grace_s - time.monotonic() if self.asked else math.inf

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A forked child (a data worker, say) inherits this handler and must still end when told to.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        if not self.asked:
            self._asked_s = time.monotonic()
        self.asked = True
