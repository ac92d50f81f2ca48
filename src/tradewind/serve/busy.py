"""What a worker is at: the batch that it runs, and perhaps one that was sent ahead and waits there behind it."""

import math
from typing import NamedTuple


class Sent(NamedTuple):
    """A batch that was sent to a worker: how long it takes, as predicted, and what it is made of."""

    seconds: float
    spread_s: float = 0.0
    """How much sooner than predicted it may end."""
    hang_s: float = 0.0
    """What takes so long has hung."""
    jobs: int = 0
    rows: tuple[int, ...] = ()
    """Of each class."""


class Busy:
    """The batches of one worker, which it runs in the order in which they were sent."""

    def __init__(self, sent: Sent, now: float) -> None:
        self.sent = [sent]
        self.began_s = now
        """When the first began."""
        self.until_s = now + sent.seconds
        """When the last has ended, as predicted."""
        self._fatal: Sent | None = None

    @property
    def jobs(self) -> int:
        """Requests in all of them."""
        return sum([sent.jobs for sent in self.sent])

    @property
    def hang_s(self) -> float:
        """How long all of them may take together before something has hung."""
        return sum([sent.hang_s for sent in self.sent])

    @property
    def idle_s(self) -> float:
        """When the worker may have nothing to do, at the earliest; never, where a batch waits there already."""
        if len(self.sent) > 1 or self._fatal is not None:
            return math.inf
        return self.until_s - self.sent[0].spread_s

    @property
    def overdue_s(self) -> float:
        """When the first has taken longer than it should: nobody knows then how long it still takes."""
        return self.began_s + self.sent[0].seconds + self.sent[0].spread_s

    def add(self, sent: Sent, now: float) -> None:
        """One more waits behind the first."""
        self.sent.append(sent)
        self.until_s = max(self.until_s, now) + sent.seconds

    def end(self, sent: Sent, now: float) -> bool:
        """A batch has ended, or will never begin; whether there is another."""
        self.sent.remove(sent)
        self.began_s = now
        self.until_s = now + sum([other.seconds for other in self.sent])
        return bool(self.sent)

    def lose(self) -> Sent:
        """The worker has died, and gets nothing more. Return the batch that it ran then: others had not begun."""
        self._fatal = self._fatal or self.sent[0]
        return self._fatal
