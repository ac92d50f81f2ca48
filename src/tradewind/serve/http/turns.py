"""Whose request is looked at next, where more comes in than can be answered."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from tradewind.serve.classes import Guarantee, precedence

SLICE_S = 0.0005
"""Seconds of requests after which the sockets are looked at again."""
ALONE = Guarantee((1.0,), 0.05)


class Turn(NamedTuple):
    """Of which class a request is, 0 being the most important, and when it is due, on the monotonic clock."""

    rank: int
    due_s: float


class Turns:
    """Requests that have come in whole and wait for the process; the connections of one listener share it.

    To answer a request takes many times what it takes to bring it in. So all that is there is brought in first, then
    answered class by class, the earliest due first in each, and after a slice of that the loop looks for what has
    come meanwhile. An important request waits for one slice and for its neighbours to be brought in, not for all that
    came before it. Classes are guaranteed shares of the process's time as they are of the model's.
    """

    def __init__(self, guarantee: Guarantee = ALONE, clock: Callable[[], float] = time.monotonic) -> None:
        self._guarantee = guarantee
        self._clock = clock
        self._spent_s = 0.0
        """Seconds that went into requests: what is shared, whatever else the process has to do."""
        self._credits = guarantee.opening(self._spent_s)
        self._waiting: list[list[tuple[float, int, Callable[[], None]]]] = [[] for _ in guarantee.shares]
        self._numbers = itertools.count()
        self._asked = False
        """The loop has been asked to come back to them."""

    def wait(self, turn: Turn, begin: Callable[[], None]) -> None:
        """Call `begin` when it is its turn; among equals the first goes first."""
        heapq.heappush(self._waiting[turn.rank], (turn.due_s, next(self._numbers), begin))
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        """Answer for a slice of time, or until nobody waits."""
        self._asked = False
        now = self._clock()
        end_s, used_s = now + SLICE_S, [0.0] * len(self._waiting)
        self._credits = self._guarantee.earned(self._credits, self._spent_s)
        try:
            for rank in precedence(self._credits):
                waiting = self._waiting[rank]
                while waiting and now < end_s:
                    heapq.heappop(waiting)[-1]()
                    before, now = now, self._clock()
                    used_s[rank] += now - before
        finally:  # whatever a request does to us, the others have their turn
            self._spent_s += sum(used_s)
            self._credits = self._guarantee.charged(self._credits, used_s)
            if any(self._waiting):
                self._ask()
