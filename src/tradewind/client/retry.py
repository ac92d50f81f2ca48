"""Whether and when a failed call is tried again: only what is safe, only while its deadline lasts."""

from typing import NamedTuple

from tradewind.client.errors import ClientError, Refused, Unreachable

SAFE = (Refused, Unreachable)
"""Nothing was answered: refused before it ran, or never begun to be answered."""


class RetryPolicy(NamedTuple):
    """How often a call is tried, and how long it waits for an endpoint that did not say."""

    max_tries: int = 3
    first_pause_s: float = 0.01
    most_pause_s: float = 0.25


class Next(NamedTuple):
    """When the next try may begin, and which endpoints may be asked then."""

    at_s: float
    endpoints: frozenset[int]


class Retry:
    """What one call has tried so far. Endpoints are numbers; instants are on the caller's clock."""

    def __init__(self, policy: RetryPolicy, num_endpoints: int, deadline_s: float) -> None:
        self._policy = policy
        self._deadline_s = deadline_s
        self._free_at_s = [0.0] * num_endpoints
        self.tries = 1

    def after(self, error: ClientError, endpoint: int, now: float, jitter: float) -> Next | None:
        """What follows a failure: the next try, or None where there is none.

        `jitter` is in [0, 1). An endpoint that was refused by `Retry-After` is left alone for so long; others
        may be asked at once.
        """
        if not isinstance(error, SAFE) or self.tries >= self._policy.max_tries:
            return None
        self._free_at_s[endpoint] = now + self._pause_s(error, jitter)
        at_s = max(now, min(self._free_at_s))
        if at_s >= self._deadline_s:
            return None
        self.tries += 1
        return Next(at_s, frozenset(i for i, free in enumerate(self._free_at_s) if free <= at_s))

    def _pause_s(self, error: ClientError, jitter: float) -> float:
        if isinstance(error, Refused) and error.retry_after_s is not None:
            return error.retry_after_s
        doubled_s = self._policy.first_pause_s * 2.0 ** (self.tries - 1)
        return jitter * min(doubled_s, self._policy.most_pause_s)
