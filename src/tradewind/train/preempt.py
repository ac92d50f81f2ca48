"""Preemption: SIGTERM asks a run to commit its state and leave with the requeue code."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Preemption:
    """Notices SIGTERM; the loop makes all workers stop after the same step."""

    def __init__(self) -> None:
        self.asked = False
        """Whether this worker was told to leave."""
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

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A forked child (a data worker, say) inherits this handler and must still end when told to.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        self.asked = True
