"""Where a recommender's users are fetched from."""

import urllib.parse

import msgspec

from tradewind.errors import SpecError
from tradewind.spec.base import Spec
from tradewind.spec.run import Positive
from tradewind.spec.secret import masked

SCHEMES = ("redis", "rediss", "unix")
USER = "{user}"


class FeatureSpec(Spec, frozen=True, kw_only=True):
    """The store of what is known of users, and for how long a request waits for it.

    `store` is the URL of a Redis server (`redis://`, `rediss://`, `unix://`), or a file of JSON lines that is read at
    start-up. `key` is a user's key in Redis, `{user}` standing for the user.
    """

    store: str
    key: str = "user:{user}"
    max_ms: Positive = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key.count(USER) != 1:
            raise SpecError(f"FeatureSpec: key: {self.key!r} must hold {USER} once, as in 'user:{USER}'")
        if problem := _problem(self.store):
            raise SpecError(f"FeatureSpec: store: {masked(self.store)}: {problem}")

    @property
    def scheme(self) -> str:
        """What the store's address begins with; "" for a file."""
        return self.store.partition("://")[0] if "://" in self.store else ""

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return list(self.shown().items())

    def __repr__(self) -> str:
        return f"FeatureSpec({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"

    def shown(self) -> dict[str, object]:
        """The fields, without what is secret in them."""
        return msgspec.structs.asdict(self) | {"store": masked(self.store)}


def _problem(store: str) -> str | None:
    if "://" not in store:
        return None if store else "name a file of JSON lines, or a URL as redis://127.0.0.1:6379/0"
    try:
        url = urllib.parse.urlsplit(store)
        _ = url.port
    except ValueError:
        return "not a URL: write one as redis://127.0.0.1:6379/0"
    if url.scheme not in SCHEMES:
        return (
            f"there is no store {url.scheme}://; there are {', '.join(s + '://' for s in SCHEMES)} and files"
        )
    if url.scheme == "unix":
        return None if url.path else "name the socket, as in unix:///run/redis.sock"
    return None if url.hostname else "name the host, as in redis://127.0.0.1:6379/0"
