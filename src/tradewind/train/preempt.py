"""Preemption: SIGTERM asks a run to commit its state and leave with the requeue code."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from tradewind.train.distributed import Peers


class Preemption:
    """Notices SIGTERM on any worker and makes all of them stop after the same step.

    With several workers the question "was anyone asked to stop?" is put after a step and its
    answer is read after the next one, so it never waits for the network.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._asked = False
        self._pid = os.getpid()
        self._pending: Any = None
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
        self._asked = True

    def due(self) -> bool:
        """Called by every worker after every step: is this the step to stop after?"""
        if self._peers.world == 1:
            return self._asked
        answer = self._pending is not None and self._peers.any_up(self._pending)
        self._pending = None if answer else self._peers.start_any(self._asked)
        return answer

    def settle(self) -> None:
        """Read an answer still under way, so that no worker leaves it behind."""
        if self._pending is not None:
            self._peers.any_up(self._pending)
            self._pending = None
