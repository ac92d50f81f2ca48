"""What one tenant may take of a replica; pure but for what it remembers, the clock is passed in."""

from typing import NamedTuple

from tradewind.serve.errors import RequestError


class Allowance(NamedTuple):
    """A tenant's limits; None is no limit of its own."""

    requests_per_s: float | None = None
    burst: float = 1.0
    """Requests that may come at once after a pause."""
    in_flight: int | None = None
    max_bytes: int | None = None
    """Of one request's body."""


class Quota:
    """A token bucket and a count of what is in flight (Turner 1986; RFC 2697 without its second bucket)."""

    def __init__(self, tenant: str, allowance: Allowance, now: float) -> None:
        self.tenant = tenant
        self.in_flight = 0
        self._allowance = allowance
        self._tokens = allowance.burst
        self._counted_s = now

    def adopt(self, allowance: Allowance) -> None:
        """Go on under other limits; what was taken stays taken."""
        self._allowance = allowance
        self._tokens = min(self._tokens, allowance.burst)

    def take(self, now: float) -> None:
        """Count a request in; `leave` counts it out. Raises RequestError (429) naming the quota that is used up."""
        limits = self._allowance
        if limits.in_flight is not None and self.in_flight >= limits.in_flight:
            raise RequestError(
                429, f"quota 'in_flight' of tenant {self.tenant!r}: {limits.in_flight} are in flight", 1.0
            )
        if limits.requests_per_s is not None:
            self._take_token(limits.requests_per_s, limits.burst, now)
        self.in_flight += 1

    def leave(self) -> None:
        """Count a request out."""
        self.in_flight -= 1

    def check_size(self, num_bytes: int) -> None:
        """Raise RequestError (413) where a body is larger than this tenant may send."""
        limit = self._allowance.max_bytes
        if limit is not None and num_bytes > limit:
            raise RequestError(
                413, f"quota 'max_request_mib' of tenant {self.tenant!r}: the request is over {limit} bytes"
            )

    def _take_token(self, rate: float, burst: float, now: float) -> None:
        self._tokens = min(burst, self._tokens + (now - self._counted_s) * rate)
        self._counted_s = now
        if self._tokens < 1.0:
            message = (
                f"quota 'requests_per_s' of tenant {self.tenant!r}: {rate:g} a second, {burst:g} at once"
            )
            raise RequestError(429, message, (1.0 - self._tokens) / rate)
        self._tokens -= 1.0
