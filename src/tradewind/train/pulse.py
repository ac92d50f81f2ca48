"""The one small message that all workers exchange every few steps, without waiting for it."""

import math
from collections.abc import Sequence
from typing import Any

from tradewind.train.distributed import Peers

_APART_S, _MOST_APART = 0.5, 8
"""Seconds, and steps at most: waking the thread that sends a pulse takes a third of a millisecond from a step."""


class Pulse:
    """The largest of what the workers last said, the same on all of them.

    An exchange is begun after one step and read after the next, so it never waits for the network;
    and who has read it knows that every worker had come as far as its `beat`.
    """

    def __init__(self, peers: Peers, agreed: Sequence[int]) -> None:
        """`agreed` counts until the workers have said something."""
        self._peers = peers
        self._agreed = list(agreed)
        self._pending: Any = None

    def read(self) -> list[int]:
        """What is agreed, element by element."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._agreed = self._peers.largest(pending)
        return self._agreed

    def beat(self, values: Sequence[int]) -> None:
        """Say this worker's values; every worker says as many. Alone, there is nobody to say them to."""
        assert self._pending is None
        if self._peers.world > 1:
            self._pending = self._peers.start_largest(values)

    @property
    def is_under_way(self) -> bool:
        """Whether something was said that is not read yet."""
        return self._pending is not None

    def settle(self) -> None:
        """Read an answer still under way, so that no worker leaves it behind."""
        self.read()


def apart(step_s: float | None) -> int:
    """Steps of so many seconds from one pulse to the next: 1 before it is known how long they take."""
    return max(1, min(_MOST_APART, math.floor(_APART_S / step_s))) if step_s else 1
