"""Who asks, and how important it is: the tenant and the priority class of a request."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tradewind import names
from tradewind.serve.errors import RequestError

NOBODY = "default"
"""The tenant of requests that name none."""
OTHERS = "others"
"""The tenant of all those who came after `MAX_TENANTS` were known."""
MAX_TENANTS = 1024
_PRIORITY, _TENANT = names.HEADER_PRIORITY.encode(), names.HEADER_TENANT.encode()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)

Header = Callable[[bytes], str | None]


class Caller(NamedTuple):
    """The tenant of a request, and its class: 0 is the most important."""

    tenant: str
    priority: int


ANYBODY = Caller(NOBODY, 0)


class Stated(NamedTuple):
    """What a request's headers say of it, whenever it comes."""

    caller: Caller
    budget_s: float


class Claim(NamedTuple):
    """The same of one request, which has come."""

    caller: Caller
    deadline_s: float
    final: bool
    """Nothing in its body, which nobody has read, says otherwise."""


class Callers:
    """Reads who calls from a request's headers or metadata; knows a bounded number of tenants."""

    def __init__(
        self, classes: Sequence[str], default_class: str, weights: Mapping[str, float] | None = None
    ) -> None:
        self.classes = tuple(classes)
        self._default = self.classes.index(default_class)
        self._weights = dict(weights or {})
        self._tenants = {NOBODY, OTHERS, *self._weights}
        self._plain = Caller(NOBODY, self._default)

    def caller_of(self, header: Header, priority: object = None) -> Caller:
        """Return who sent a request.

        `header` gives a header's value by its name in lower case. `priority` is what the body states, which counts
        before the header `x-priority`: a class's name, or a number from 1, the most important; 0 stands for the
        default. The header `x-tenant` is believed: where callers have keys, it is the key that has set it. Raises
        RequestError (400) for a class that there is not, or a tenant that is no name.
        """
        stated = header(_PRIORITY) if priority is None else priority
        claimed = header(_TENANT)
        if stated is None and claimed is None:
            return self._plain
        return Caller(self._known(claimed), self._default if stated is None else self._class(stated))

    def weight(self, tenant: str) -> float:
        """Return how much of a class this tenant is due, against the 1 of others."""
        return self._weights.get(tenant, 1.0)

    def _known(self, tenant: str | None) -> str:
        if tenant is None or tenant in self._tenants:
            return tenant or NOBODY
        if not _NAME.fullmatch(tenant):
            raise RequestError(400, f"{names.HEADER_TENANT} must be 1 to 64 letters, digits and any of _.@-")
        if len(self._tenants) >= MAX_TENANTS:
            return OTHERS
        self._tenants.add(tenant)
        return tenant

    def _class(self, stated: object) -> int:
        text = str(stated) if isinstance(stated, (str, int)) and not isinstance(stated, bool) else ""
        if text in self.classes:
            return self.classes.index(text)
        if not _NUMBER.fullmatch(text):
            known = ", ".join(self.classes)
            raise RequestError(
                400, f"priority must be one of {known}, or a number from 1, the most important"
            )
        return min(int(text), len(self.classes)) - 1 if int(text) else self._default
