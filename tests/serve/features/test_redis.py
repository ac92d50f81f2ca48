"""Users from a real Redis: round trips, lost connections, logins; what is secret is not shown."""

import asyncio
import pathlib
from collections.abc import Awaitable, Callable

import pytest

from tests.serve.certificates import Authority, needs_openssl
from tests.services.redis import PASSWORD, RedisServer, redis_server
from tradewind.errors import SpecError
from tradewind.serve.features.base import StoreDown

pytest.importorskip("redis", reason="REDIS IS NOT TESTED: its client is not installed")

from tradewind.serve.features.redis import RedisStore

KEY = "user:{user}"


def with_store(url: str, use: Callable[[RedisStore], Awaitable[None]], key: str = KEY) -> None:
    """Use a store until it is closed."""

    async def scenario() -> None:
        store = RedisStore(url, key)
        try:
            await use(store)
        finally:
            await store.close()

    asyncio.run(scenario())


def test_users_come_in_order_in_one_round_trip(redis: RedisServer):
    """None for whoever is not there, and for a key that holds something else; one command, one connection."""
    redis.put("app:7:profile", b"seven")
    redis.put("app:\u00fc 8:profile", b"eight")
    redis.run("LPUSH", "app:9:profile", "x")

    async def use(store: RedisStore) -> None:
        for _ in range(3):
            found = await store.get(["9", "\u00fc 8", "none", "7"])
            assert found == [None, b"eight", None, b"seven"]

    with_store(redis.url, use, "app:{user}:profile")
    assert redis.calls("mget") == 3
    assert redis.calls("hello") + redis.calls("auth") <= 1


def test_a_connection_that_was_closed_meanwhile_is_made_anew(redis: RedisServer):
    """Whoever asks next does not notice."""
    redis.put("user:1", b"one")

    async def use(store: RedisStore) -> None:
        for _ in range(3):
            assert await store.get(["1"]) == [b"one"]
            assert redis.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") == b":1"

    with_store(redis.url, use)


def test_a_round_trip_that_is_given_up_leaves_nothing_to_the_next():
    """Its answer, which comes later, is not taken for another's."""
    with redis_server() as server:
        server.put("user:1", b"one")
        server.put("user:2", b"two")

        async def use(store: RedisStore) -> None:
            assert await store.get(["1"]) == [b"one"]
            with server.hung():
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await store.get(["1"])
            for _ in range(3):
                assert await store.get(["2"]) == [b"two"]

        with_store(server.url, use)


def test_a_server_that_is_gone_says_so_and_may_come_back():
    with redis_server() as server:

        async def use(store: RedisStore) -> None:
            await store.check()
            server.kill()
            for ask in (store.check(), store.get(["1"])):
                with pytest.raises(StoreDown, match="ConnectionError"):
                    await ask
            server.start()
            await store.check()
            assert await store.get(["1"]) == [None]

        with_store(server.url, use)


def test_a_server_that_answers_but_not_this_is_not_there():
    """Keys that may not be read are not found out one request at a time."""
    with redis_server(PASSWORD) as server:
        server.run("ACL", "SETUSER", "reader", "on", f">{PASSWORD}", "~other:*", "+@all")

        async def use(store: RedisStore) -> None:
            with pytest.raises(StoreDown, match="NoPermissionError"):
                await store.check()

        async def good(store: RedisStore) -> None:
            await store.check()

        url = server.url.replace("redis://:", "redis://reader:")
        with_store(url, use)
        with_store(url, good, "other:{user}")


def test_a_password_is_taken_from_the_url_and_shown_to_nobody():
    """Nor is a wrong one."""
    with redis_server(PASSWORD) as server:
        server.put("user:1", b"one")

        async def good(store: RedisStore) -> None:
            assert await store.get(["1"]) == [b"one"]

        async def bad(store: RedisStore) -> None:
            with pytest.raises(StoreDown) as caught:
                await store.get(["1"])
            assert "wr0ng" not in f"{caught.value!r}"

        with_store(server.url, good)
        with_store(server.url.replace(PASSWORD, "wr0ng"), bad)
        with_store(f"unix://:{PASSWORD}@{server.socket}", good)


@needs_openssl
def test_tls_is_spoken_where_the_url_says_so(tmp_path: pathlib.Path):
    """Its certificate is checked against the authority that the URL names."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    signed = ours.sign("redis")
    options = {
        "tls-cert-file": str(signed.cert),
        "tls-key-file": str(signed.key),
        "tls-ca-cert-file": str(ours.cert),
        "tls-auth-clients": "no",
    }
    with redis_server(PASSWORD, options) as server:
        server.put("user:1", b"one")

        async def good(store: RedisStore) -> None:
            assert await store.get(["1"]) == [b"one"]

        async def bad(store: RedisStore) -> None:
            with pytest.raises(StoreDown, match="CERTIFICATE_VERIFY_FAILED"):
                await store.get(["1"])

        url = f"rediss://:{PASSWORD}@127.0.0.1:{server.tls_port}/0?ssl_ca_certs="
        with_store(f"{url}{ours.cert}", good)
        with_store(f"{url}{other.cert}", bad)


@pytest.mark.parametrize(
    "url", ["redis://:s3cret@h:6379/0?socket_timeout=soon", "redis://:s3cret@h/0?nothing=1"]
)
def test_a_url_that_cannot_be_used_is_named_without_its_password(url: str):
    with pytest.raises(SpecError, match=r"features: store: redis://\*\*\*@h") as caught:
        RedisStore(url, KEY)
    assert PASSWORD not in str(caught.value)
