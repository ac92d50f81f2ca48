"""Who gives way inside a class: the tenant that has had the most for its weight.

Requests run by deadline, whoever sent them; what is shared is the room in the queue, in seconds of model time. Each
tenant has a virtual time: what it was given room for, over its weight (start-time fair queueing: Goyal, Vin and Cheng,
SIGCOMM 1996). When a request does not fit, the tenant that is furthest ahead gives up its latest one for it; a
request of that tenant itself is refused. A share that one tenant does not use is there for the others.
"""

from collections.abc import Callable, Mapping

Weight = Callable[[str], float]


class Share:
    """What one tenant has in the queue, and its virtual time in seconds."""

    __slots__ = ("jobs", "virtual_s")

    def __init__(self, virtual_s: float) -> None:
        self.jobs = 0
        self.virtual_s = virtual_s


class Standing:
    """The tenants of one class. Nobody is further than `bank_s` behind the one furthest ahead that has work queued.

    That bounds what a tenant saves up while it asks for less than its share: enough to be uneven, too little to shut
    the others out for longer than `bank_s` when it comes back.
    """

    def __init__(self, bank_s: float, weight: Weight) -> None:
        self._bank_s = bank_s
        self._weight = weight
        self._shares: dict[str, Share] = {}
        self._queued: dict[str, Share] = {}
        """Of tenants that have work in the queue."""

    @property
    def queued(self) -> dict[str, float]:
        """The virtual time of each tenant that has work in the queue."""
        return {tenant: share.virtual_s for tenant, share in self._queued.items()}

    def virtual_s(self, tenant: str) -> float:
        """Return where a tenant stands, if it came with a request now."""
        most_s = max([share.virtual_s for share in self._queued.values()], default=0.0)
        share, least_s = self._shares.get(tenant), most_s - self._bank_s
        return least_s if share is None else max(share.virtual_s, least_s)

    def add(self, tenant: str, cost_s: float) -> None:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = Share(self.virtual_s(tenant))
        elif not share.jobs or len(self._queued) > 1:
            share.virtual_s = self.virtual_s(tenant)
        share.virtual_s += cost_s / self._weight(tenant)
        share.jobs += 1
        self._queued[tenant] = share

    def remove(self, tenant: str, jobs: int = 1, back_s: float = 0.0) -> None:
        """Take requests out of the queue; `back_s` is what those of them cost that did not run."""
        share = self._shares[tenant]
        share.jobs -= jobs
        if not share.jobs:
            del self._queued[tenant]
        if back_s:
            share.virtual_s -= back_s / self._weight(tenant)

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
