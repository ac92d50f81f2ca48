"""One call against servers that misbehave as scripted: what is tried again, hedged, ejected, given up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.services.ports import free_port
from tests.services.scripted import WAIT_S, scripted_server
from tradewind.client import (
    AsyncClient,
    BadRequest,
    BrokenAnswer,
    ClientError,
    DeadlineExceeded,
    Denied,
    Options,
    Refused,
    RetryPolicy,
    ServerFailed,
    Unreachable,
)
from tradewind.client.endpoints import EJECT_AFTER
from tradewind.client.hedge import LEAST

T = TypeVar("T")
PATIENT = Options(deadline_ms=60_000, hedge_share=0.0)


def with_client(urls: str | list[str], options: Options, use: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """What `use` returns for a client of these endpoints."""

    async def main() -> T:
        async with AsyncClient(urls, options) as client:
            return await use(client)

    return asyncio.run(main())


async def ask(client: AsyncClient) -> str:
    return (await client.recommend(["1"])).items[0].item


@pytest.mark.parametrize("trouble", ["reset", "429", "503", "429:0"])
def test_what_is_safe_is_tried_again(trouble: str) -> None:
    """A connection reset before the answer, or a refusal, costs one more try and is not seen by the caller."""
    with scripted_server(trouble, trouble, "ok") as server:

        async def use(client: AsyncClient) -> None:
            assert await ask(client) == "a"
            assert (client.counts.calls, client.counts.sent, client.counts.retries) == (1, 3, 2)

        with_client(server.url, PATIENT, use)
        assert (server.injected[trouble], server.injected["ok"]) == (2, 1)
        ids = {seen.headers["x-request-id"] for seen in server.seen}
        left = [float(seen.headers["x-deadline-ms"]) for seen in server.seen]
    assert len(ids) == 1
    assert 60_000 >= left[0] > left[1] > left[2] > 0


@pytest.mark.parametrize(
    ("trouble", "kind", "status"),
    [
        ("half", BrokenAnswer, 0),
        ("garbage", BrokenAnswer, 0),
        ("500", ServerFailed, 500),
        ("400", BadRequest, 400),
        ("401", Denied, 401),
        ("429:3600", Refused, 429),
    ],
)
def test_what_is_not_safe_or_not_in_time_is_raised_at_once(
    trouble: str, kind: type[ClientError], status: int
) -> None:
    """One request is sent; the error names the endpoint, the status and the request's id."""
    with scripted_server(trouble) as server:

        async def use(client: AsyncClient) -> ClientError:
            with pytest.raises(ClientError) as caught:
                await client.recommend(["1"], request_id="mine")
            return caught.value

        error = with_client(server.url, PATIENT, use)
        assert len(server.seen) == server.injected[trouble] == 1
        assert str(error).startswith(server.url)
    assert (type(error), error.status, error.request_id, error.tries) == (kind, status, "mine", 1)
    if isinstance(error, Refused):
        assert error.retry_after_s == 3600


def test_retries_end_with_their_budget() -> None:
    """A server that resets everything is asked for its calls and the reserve of ten more, not for three times as much."""
    with scripted_server("reset") as server:

        async def use(client: AsyncClient) -> None:
            for _ in range(30):
                with pytest.raises(Unreachable):
                    await ask(client)

        quick = PATIENT._replace(retries=RetryPolicy(first_pause_s=0.0), retry_share=0.05)
        with_client(server.url, quick, use)
        assert 30 + 10 <= len(server.seen) == server.injected["reset"] <= 30 + 10 + 0.05 * 30


def test_the_deadline_ends_a_call_and_frees_the_servers_slot() -> None:
    """No answer: the call ends with its budget, and the server sees the connection close."""
    with scripted_server("hold") as server:

        async def use(client: AsyncClient) -> None:
            with pytest.raises(DeadlineExceeded, match="deadline"):
                await client.recommend(["1"], deadline_ms=500)
            assert await asyncio.to_thread(server.left.acquire, timeout=WAIT_S)

        with_client(server.url, PATIENT, use)
        assert server.injected["hold"] == 1


def test_a_refusal_is_not_waited_out_beyond_the_deadline() -> None:
    """Retries never begin after the deadline: what the last answer said is raised."""
    with scripted_server("503:1") as server:

        async def use(client: AsyncClient) -> None:
            with pytest.raises(Refused, match="scripted"):
                await client.recommend(["1"], deadline_ms=900)

        with_client(server.url, PATIENT, use)
        assert len(server.seen) == 1


def test_a_slow_call_is_hedged_and_the_loser_is_cancelled() -> None:
    """A request that hangs is overtaken by its hedge, and its connection closes, so that the server can drop it."""
    with scripted_server(*["ok"] * LEAST, "hold", "ok") as server:

        async def use(client: AsyncClient) -> None:
            for _ in range(LEAST + 1):
                assert await ask(client) == "a"
            counts = client.counts
            assert (counts.calls, counts.sent, counts.hedges, counts.hedges_won) == (
                LEAST + 1,
                LEAST + 2,
                1,
                1,
            )
            assert await asyncio.to_thread(server.left.acquire, timeout=WAIT_S)

        with_client(server.url, PATIENT._replace(hedge_share=0.05), use)
        assert server.injected == {"ok": LEAST + 1, "hold": 1}


def test_hedges_end_with_their_budget() -> None:
    """With two in reserve, the third hanging call is left to its deadline."""
    with scripted_server(*["ok"] * LEAST, "hold", "ok", "hold", "ok", "hold") as server:

        async def use(client: AsyncClient) -> None:
            for _ in range(LEAST + 2):
                await ask(client)
            with pytest.raises(DeadlineExceeded):
                await client.recommend(["1"], deadline_ms=300)
            assert client.counts.hedges == 2

        with_client(server.url, PATIENT._replace(hedge_share=0.001), use)
        assert server.injected["hold"] == 3


def test_a_dead_endpoint_costs_nothing_but_a_retry_and_comes_back_after_a_probe() -> None:
    """Calls go on beside it; once ejected it gets none, until it says that it is ready."""
    port = free_port()
    dead = f"http://127.0.0.1:{port}"
    with scripted_server("ok") as alive:

        async def use(client: AsyncClient) -> None:
            while not client.endpoints[1].ejected:
                assert await ask(client) == "a"
            sent = client.counts.sent
            for _ in range(20):
                assert await ask(client) == "a"
            assert client.counts.sent == sent + 20
            with scripted_server("ok", port=port) as risen:
                client._sender.endpoints.health[1].back_at_s = 0.0
                while not risen.seen:
                    assert await ask(client) == "a"
                assert risen.probes == 1
                assert not client.endpoints[1].ejected

        with_client([alive.url, dead], PATIENT._replace(retry_share=1.0), use)
        assert len(alive.seen) >= EJECT_AFTER


def test_a_failed_probe_leaves_it_ejected() -> None:
    """An endpoint that answers but is not ready gets no calls."""
    with scripted_server("ok") as good, scripted_server("500", "ok") as draining:
        draining.ready = False

        async def use(client: AsyncClient) -> None:
            for _ in range(EJECT_AFTER):
                client._sender.endpoints.failed(1, -1e6)
            while not draining.probes:
                assert await ask(client) == "a"
            assert client.endpoints[1].ejected

        with_client([good.url, draining.url], PATIENT, use)
        assert draining.seen == []


def test_connections_are_kept_and_replaced() -> None:
    """Calls one after the other share a connection; one that the server closed is replaced unnoticed."""
    with scripted_server("ok") as server:

        async def use(client: AsyncClient) -> None:
            for _ in range(5):
                await ask(client)
            assert server.connections == 1
            (connection,) = client._sender._pools[0]._idle
            server.close_connections()
            while connection.usable:
                await asyncio.sleep(0)
            await ask(client)
            assert (server.connections, client.counts.retries) == (2, 0)

        with_client(server.url, PATIENT, use)


def test_who_asks_is_said() -> None:
    """Key, tenant and priority travel in their headers; a call's own replace the client's."""
    with scripted_server("ok") as server:
        options = PATIENT._replace(api_key="k", tenant="shop", priority="high")

        async def use(client: AsyncClient) -> None:
            await client.recommend(["1"])
            await client.recommend(["1"], tenant="other", priority="low", headers={"traceparent": "00-x"})

        with_client(server.url, options, use)
        first, second = (seen.headers for seen in server.seen)
    assert (first["authorization"], first["x-tenant"], first["x-priority"]) == ("bearer k", "shop", "high")
    assert (second["x-tenant"], second["x-priority"], second["traceparent"]) == ("other", "low", "00-x")


def test_nobody_listening_is_unreachable() -> None:
    """A refused connection is an error of its own, and `ready` is False, not an error."""
    url = f"http://127.0.0.1:{free_port()}"

    async def use(client: AsyncClient) -> None:
        with pytest.raises(Unreachable, match="cannot connect"):
            await ask(client)
        assert not await client.ready()

    with_client(url, PATIENT, use)
