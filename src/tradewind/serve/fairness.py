"""Who gives way inside a class: the tenant that has had the most for its weight.

Requests run by deadline, whoever sent them; what is shared is the room in the queue, in seconds of model time. Each
tenant has a virtual time: what it was given room for, over its weight (start-time fair queueing: Goyal, Vin and Cheng,
SIGCOMM 1996). When a request does not fit, the tenant that is furthest ahead gives up its latest one for it; a
request of that tenant itself is refused. A share that one tenant does not use is there for the others.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Weight = Callable[[str], float]


class Share(NamedTuple):
    """What one tenant has in the queue, and its virtual time in seconds."""

    jobs: int
    virtual_s: float


class Standing:
    """The tenants of one class. Nobody is further than `bank_s` behind the one furthest ahead that has work queued.

    That bounds what a tenant saves up while it asks for less than its share: enough to be uneven, too little to shut
    the others out for longer than `bank_s` when it comes back.
    """

    def __init__(self, bank_s: float, weight: Weight) -> None:
        self._bank_s = bank_s
        self._weight = weight
        self._shares: dict[str, Share] = {}

    @property
    def queued(self) -> dict[str, float]:
        """The virtual time of each tenant that has work in the queue."""
        return {tenant: share.virtual_s for tenant, share in self._shares.items() if share.jobs}

    def virtual_s(self, tenant: str) -> float:
        """Return where a tenant stands, if it came with a request now."""
        least = max(self.queued.values(), default=0.0) - self._bank_s
        return max(self._shares[tenant].virtual_s, least) if tenant in self._shares else least

    def add(self, tenant: str, cost_s: float) -> None:
        jobs = self._shares[tenant].jobs if tenant in self._shares else 0
        self._shares[tenant] = Share(jobs + 1, self.virtual_s(tenant) + cost_s / self._weight(tenant))

    def remove(self, tenant: str, cost_s: float, *, ran: bool) -> None:
        """Take a request out of the queue; one that did not run is not counted."""
        jobs, virtual_s = self._shares[tenant]
        self._shares[tenant] = Share(jobs - 1, virtual_s - (0.0 if ran else cost_s / self._weight(tenant)))

    def gives_way(self, tenant: str, cost_s: float, given: Mapping[str, float] | None = None) -> str | None:
        """Return who gives up `cost_s` to `tenant`, if anybody: who is ahead of it even then.

        `given` holds the seconds that tenants have already given up to it.
        """
        queued = self.queued
        for other, seconds in (given or {}).items():
            queued[other] -= seconds / self._weight(other)
        top = max(queued, key=lambda name: queued[name], default=None)
        if top is None or top == tenant:
            return None
        mine = self.virtual_s(tenant) + cost_s / self._weight(tenant)
        return top if queued[top] - cost_s / self._weight(top) >= mine else None
