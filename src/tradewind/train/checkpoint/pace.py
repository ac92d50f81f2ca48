"""Background work that leaves most of the time to training."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tradewind.errors import TradewindError


class GivenUpError(TradewindError):
    """The work is not wanted any more."""


SHARE = 0.02
"""Of one core, that each kind of work in the background takes: writing to disk, sealing images, making room for one."""
PIECE = 1 << 20
"""Bytes to work on between two rests: a tenth of a millisecond or two, which no step of training notices."""


class Pace:
    """Work for `share` of the time, and rest for the remainder until someone is in a hurry."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.hurry = threading.Event()
        self.rested_s = 0.0
        self._given_up = False

    @property
    def is_hurried(self) -> bool:
        """Whether there are no rests now."""
        return self.share >= 1 or self.hurry.is_set()

    def give_up(self) -> None:
        """Have the work end at its next rest, with a GivenUpError."""
        self._given_up = True
        self.hurry.set()

    def rest(self, worked_s: float) -> None:
        """Rest as long as work of so many seconds asks for."""
        if not self.is_hurried:
            began = time.monotonic()
            self.hurry.wait(worked_s * (1 / self.share - 1))
            self.rested_s += time.monotonic() - began
        if self._given_up:
            raise GivenUpError("given up, because the workers part")

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Take no rests while somebody waits in the block."""
        self.hurry.set()
        try:
            yield
        finally:
            self.hurry.clear()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Rest for the CPU time that this thread burns in the block: who waits for a disk takes nothing from training."""
        began = time.thread_time()
        yield
        self.rest(time.thread_time() - began)


UNHURRIED = Pace(1.0)
"""Never rests: for what somebody waits for."""
