"""The one small message that all workers exchange at every step, without waiting for it."""

from collections.abc import Sequence
from typing import Any

from tradewind.train.distributed import Peers


class Pulse:
    """The largest of what the workers said at the step before, the same on all of them.

    The exchange is begun after one step and read after the next, so it never waits for the network;
    and who has read it knows that every worker had come as far as its `beat` of the step before.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._pending: Any = None

    def read(self) -> list[int] | None:
        """What was agreed at the step before, element by element; None at the first step, and alone."""
        pending, self._pending = self._pending, None
        return None if pending is None else self._peers.largest(pending)

    def beat(self, values: Sequence[int]) -> None:
        """Say this worker's values; every worker says as many. Alone, there is nobody to say them to."""
        assert self._pending is None
        if self._peers.world > 1:
            self._pending = self._peers.start_largest(values)

    def settle(self) -> None:
        """Read an answer still under way, so that no worker leaves it behind."""
        self.read()
