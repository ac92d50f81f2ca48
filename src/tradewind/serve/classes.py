"""Which class goes first: the most important one inside its guarantee, then the most important one beyond it."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Credits(NamedTuple):
    """Seconds of model time that each class may still use as its own, and when that was."""

    seconds: tuple[float, ...]
    at_s: float


class Guarantee(NamedTuple):
    """Each class's share of the model's time, held over `window_s`.

    A class earns its share as time passes, up to that of one window, and pays for what runs, down to a whole window
    of debt: what it had beyond its share while nobody else asked is forgotten after that.
    """

    shares: tuple[float, ...]
    window_s: float
    num_workers: int = 1

    def opening(self, now: float) -> Credits:
        """Return the credits that the classes start with."""
        return Credits(tuple(self._most(share) for share in self.shares), now)

    def earned(self, credits: Credits, now: float) -> Credits:
        """Return the credits after time has passed."""
        passed_s = max(now - credits.at_s, 0.0) * self.num_workers
        gained = zip(credits.seconds, self.shares, strict=True)
        return Credits(tuple(min(had + s * passed_s, self._most(s)) for had, s in gained), now)

    def stands_until_s(self, credits: Credits) -> float:
        """Return when the first class is out of debt, if none uses anything meanwhile; until then the order stands."""
        debts = ((-had, s * self.num_workers) for had, s in zip(credits.seconds, self.shares, strict=True))
        left_s = (debt_s / per_s for debt_s, per_s in debts if debt_s >= 0 and per_s > 0)
        return credits.at_s + min(left_s, default=math.inf)

    def charged(self, credits: Credits, used_s: Sequence[float]) -> Credits:
        """Return the credits after each class used so many seconds of model time."""
        least = -self.window_s * self.num_workers
        left = (max(had - used, least) for had, used in zip(credits.seconds, used_s, strict=True))
        return Credits(tuple(left), credits.at_s)

    def _most(self, share: float) -> float:
        return share * self.window_s * self.num_workers


def precedence(credits: Credits) -> list[int]:
    """Return the classes in the order in which they are served."""
    return sorted(range(len(credits.seconds)), key=lambda c: (credits.seconds[c] <= 0, c))
