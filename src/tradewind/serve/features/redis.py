"""Users in Redis: a JSON document under a key of each, read by MGET over one kept connection."""

from collections.abc import Sequence
from typing import cast

from tradewind.errors import MissingExtraError, SpecError
from tradewind.serve.features.base import StoreDown
from tradewind.spec.secret import masked

try:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as Disconnected
    from redis.exceptions import RedisError
except ModuleNotFoundError as error:
    raise MissingExtraError("features in Redis need its client: pip install 'tradewind[redis]'") from error

USER = "{user}"
NOBODY = ("", "nobody")
"""Asked for to see whether anybody could be: where keys may not be read, or not together, a PING is answered."""


class RedisStore:
    """A Redis server; `url` as its client reads it (`redis://`, `rediss://`, `unix://`), `key` with a `{user}` in it."""

    def __init__(self, url: str, key: str) -> None:
        self._before, _, self._after = key.partition(USER)
        # A kept connection may have been closed by the other side: one more try, on a new one, at once.
        again = Retry(NoBackoff(), 1, supported_errors=(Disconnected,))
        try:
            self._redis = Redis.from_url(url, retry=again, socket_timeout=None, max_connections=2)
            self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # options that it does not know are found only here
        except (ValueError, TypeError) as error:
            raise SpecError(f"features: store: {masked(url)}: {masked(str(error))}") from None

    async def get(self, users: Sequence[str]) -> Sequence[bytes | None]:
        before, after = self._before, self._after
        try:
            found = await self._redis.mget([f"{before}{user}{after}" for user in users])
        except (RedisError, OSError) as error:
            raise StoreDown(_why(error)) from None
        return cast("list[bytes | None]", found)  # no text, unless the URL asks for it

    async def check(self) -> None:
        await self.get(NOBODY)

    async def close(self) -> None:
        await self._redis.aclose()


def _why(error: Exception) -> str:
    return masked(f"{type(error).__name__}: {error}")
