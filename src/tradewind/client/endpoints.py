"""Which of several endpoints a request goes to: the less busy of two, and none that keeps failing."""

import random
from collections.abc import Sequence
from typing import NamedTuple

EJECT_AFTER = 5
"""Failures in a row: no connection, a 5xx answer, or no answer inside the deadline."""
FIRST_EJECTION_S, MOST_EJECTION_S = 1.0, 30.0


class Health:
    """One endpoint as this client sees it."""

    __slots__ = ("back_at_s", "ejections", "failures", "outstanding", "probing")

    def __init__(self) -> None:
        self.outstanding = 0
        self.failures = 0
        self.ejections = 0
        self.back_at_s = 0.0
        """When an ejected endpoint is due for a probe."""
        self.probing = False

    @property
    def ejected(self) -> bool:
        return self.ejections > 0


class Snapshot(NamedTuple):
    """What `Client.endpoints` shows."""

    url: str
    outstanding: int
    ejected: bool


class Endpoints:
    """Power of two choices by outstanding requests (Mitzenmacher); ejection with doubling pauses and probes."""

    def __init__(self, urls: Sequence[str], rng: random.Random) -> None:
        self.urls = tuple(urls)
        self.health = [Health() for _ in urls]
        self._rng = rng

    def pick(self, allowed: frozenset[int] | None = None, avoid: int | None = None) -> int:
        """The number of the endpoint for one request: one that is allowed and not ejected, if there is one."""
        if len(self.health) == 1:
            return 0
        among = range(len(self.health)) if allowed is None else sorted(allowed)
        free = [i for i in among if i != avoid] or list(among)
        alive = [i for i in free if not self.health[i].ejected] or free
        if len(alive) == 1:
            return alive[0]
        one, other = self._rng.sample(alive, 2)
        return min((one, other), key=lambda i: self.health[i].outstanding)

    def worked(self, endpoint: int) -> None:
        """It answered, if only with a refusal: it is alive."""
        health = self.health[endpoint]
        health.failures = health.ejections = 0

    def failed(self, endpoint: int, now: float) -> None:
        """It did not answer, or with 5xx; after several in a row it is ejected."""
        health = self.health[endpoint]
        health.failures += 1
        if health.failures >= EJECT_AFTER and not health.ejected:
            self._eject(health, now)

    def due_for_probe(self, now: float) -> list[int]:
        """Ejected endpoints to ask whether they are ready; each is handed out once until `probed`."""
        due = [i for i, h in enumerate(self.health) if h.ejected and not h.probing and now >= h.back_at_s]
        for endpoint in due:
            self.health[endpoint].probing = True
        return due

    def probed(self, endpoint: int, ready: bool, now: float) -> None:
        """What came of a probe: back among the others, or ejected for twice as long."""
        health = self.health[endpoint]
        health.probing = False
        if ready:
            self.worked(endpoint)
        else:
            self._eject(health, now)

    def snapshot(self) -> list[Snapshot]:
        """Every endpoint as it is now."""
        pairs = zip(self.urls, self.health, strict=True)
        return [Snapshot(url, health.outstanding, health.ejected) for url, health in pairs]

    def _eject(self, health: Health, now: float) -> None:
        pause_s = min(FIRST_EJECTION_S * 2**health.ejections, MOST_EJECTION_S)
        health.ejections += 1
        health.back_at_s = now + pause_s * (0.75 + 0.5 * self._rng.random())
