"""Background work that leaves most of the time to training."""

import threading


class Pace:
    """Work for `share` of the time, and rest for the remainder until someone is in a hurry."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.hurry = threading.Event()

    def rest(self, worked_s: float) -> None:
        """Rest as long as work of so many seconds asks for."""
        if self.share < 1:
            self.hurry.wait(worked_s * (1 / self.share - 1))


UNHURRIED = Pace(1.0)
"""Never rests: for what somebody waits for."""
