"""Who may come in: the key in a request's headers decides its tenant, and the tenant's quotas what it may take."""

import time
from collections.abc import Callable

from tradewind import names
from tradewind.serve.errors import RequestError
from tradewind.serve.http import Request
from tradewind.serve.keys import Keys
from tradewind.serve.quota import Quota

TENANT = names.HEADER_TENANT.encode()
AUTHORIZATION = b"authorization"
API_KEY = b"x-api-key"
OPEN = frozenset({"health"})
"""Routes that need no key, so that probes need none."""
NO_KEY = "this server asks for an API key: send the header 'authorization: Bearer KEY'"
WRONG_KEY = "the API key is not known here"


class Gate:
    """Checks every request of a replica that has keys."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quotas: dict[str, Quota] = {}
        self.adopt(keys)

    def adopt(self, keys: Keys) -> None:
        """Go by these keys from now on; what tenants have in flight stays counted."""
        self._keys = keys
        now = self._clock()
        for tenant, allowance in keys.allowances.items():
            if tenant in self._quotas:
                self._quotas[tenant].adopt(allowance)
            else:
                self._quotas[tenant] = Quota(tenant, allowance, now)

    def admit(self, request: Request, route: str) -> None:
        """Name the request's tenant from its key alone, before its body is read; its headers lose the key.

        Raises RequestError: 401 without a key that is known, 413 for a body larger than the tenant may send.
        """
        headers = request.headers
        key = _key(headers.pop(AUTHORIZATION, None), headers.pop(API_KEY, None))
        tenant = None if key is None else self._keys.tenant(key)
        headers.pop(TENANT, None)
        if tenant is not None:
            headers[TENANT] = tenant.encode()
            request.quota = self._quotas[tenant]
            request.quota.check_size(int(headers.get(b"content-length", 0)))
        elif not self._is_open(route):
            raise RequestError(401, NO_KEY if key is None else WRONG_KEY)

    def _is_open(self, route: str) -> bool:
        return route in OPEN or (route == "metrics" and self._keys.open_metrics)


def _key(authorization: bytes | None, api_key: bytes | None) -> str | None:
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and key.strip():
            return key.strip().decode("latin-1")
    return None if api_key is None else api_key.decode("latin-1")
