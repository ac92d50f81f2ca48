"""API keys: made here, kept by a replica as digests only, and read from a file of tenants."""

import hashlib
import hmac
import pathlib
import secrets
from typing import Annotated, NamedTuple

import msgspec

from tradewind.errors import SpecError
from tradewind.serve.quota import Allowance
from tradewind.spec import Spec, load_yaml

PREFIX = "tw_"
_BYTES = 32
MAX_KEY_CHARACTERS = 200

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Tenant(Spec, frozen=True, kw_only=True):
    """Who may ask with which keys, and how much; a limit left out is none."""

    keys: tuple[Digest, ...]
    """SHA-256 of each key, as `tradewind keys new` prints it; two while one replaces the other."""
    requests_per_s: Rate | None = None
    burst: Count | None = None
    """Requests that may come at once; a second's worth when left out."""
    in_flight: Count | None = None
    max_request_mib: Rate | None = None


class KeyFile(Spec, frozen=True, kw_only=True):
    """The file that `--keys` names."""

    tenants: dict[Name, Tenant]
    open_metrics: bool = False
    """Whether `/metrics` is answered without a key."""


class NewKey(NamedTuple):
    """A key for its owner, and its digest for the file."""

    key: str
    sha256: str


def new_key() -> NewKey:
    """Return a key of 256 random bits."""
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    return NewKey(key, digest_of(key))


def digest_of(key: str) -> str:
    """Return what a file holds of a key. One round is enough: nobody guesses 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """Tenants by the digests of their keys."""

    def __init__(self, file: KeyFile) -> None:
        self.open_metrics = file.open_metrics
        self.allowances = {name: _allowance(tenant) for name, tenant in file.tenants.items()}
        self._owners = [(digest, name) for name, tenant in file.tenants.items() for digest in tenant.keys]

    def tenant(self, key: str) -> str | None:
        """Return who a key belongs to.

        Every digest is compared, each in constant time: how long it takes says nothing about a key.
        """
        if len(key) > MAX_KEY_CHARACTERS:
            return None
        digest, found = digest_of(key), None
        for known, owner in self._owners:
            if hmac.compare_digest(known, digest):
                found = owner
        return found


def load_keys(path: pathlib.Path) -> Keys:
    """Read a file of tenants. Raises SpecError naming what is wrong, and never a key or a digest."""
    file = load_yaml(path, KeyFile)
    owners: dict[str, str] = {}
    for name, tenant in file.tenants.items():
        for digest in tenant.keys:
            if owners.setdefault(digest, name) != name:
                raise SpecError(f"{path}: tenants {owners[digest]!r} and {name!r} have the same key")
    return Keys(file)


def _allowance(tenant: Tenant) -> Allowance:
    rate = tenant.requests_per_s
    burst = tenant.burst or max(1.0, rate or 1.0)
    size = tenant.max_request_mib
    return Allowance(rate, float(burst), tenant.in_flight, None if size is None else int(size * 2**20))
