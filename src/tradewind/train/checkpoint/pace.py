"""Background work that leaves most of the time to training."""

import threading

from tradewind.errors import TradewindError


class GivenUpError(TradewindError):
    """The work is not wanted any more."""


class Pace:
    """Work for `share` of the time, and rest for the remainder until someone is in a hurry."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.hurry = threading.Event()
        self._given_up = False

    def give_up(self) -> None:
        """Have the work end at its next rest, with a GivenUpError."""
        self._given_up = True
        self.hurry.set()

    def rest(self, worked_s: float) -> None:
        """Rest as long as work of so many seconds asks for."""
        if self.share < 1:
            self.hurry.wait(worked_s * (1 / self.share - 1))
        if self._given_up:
            raise GivenUpError("given up, because the workers part")


UNHURRIED = Pace(1.0)
"""Never rests: for what somebody waits for."""
