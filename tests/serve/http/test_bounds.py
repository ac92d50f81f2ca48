"""What clients may take together, or in small change: connections, bytes held, headers, requests ahead."""

import asyncio

from tests.serve.http.listening import post, run, served
from tradewind.serve.http.connection import MAX_HEADERS, MAX_PIPELINED
from tradewind.serve.http.message import failure


def test_a_connection_too_many_is_closed_and_the_others_live_on():
    """And when one leaves there is room again."""

    async def main() -> None:
        async with served(max_connections=2) as serving:
            first, second = [await serving.send(post(b"a")) for _ in range(2)]
            assert [(await client.answer())[0] for client in (first, second)] == [200, 200]
            third = await serving.connect()
            assert await third.rest() == b""
            first.send(post(b"b"))
            assert (await first.answer())[2] == b"b"
            await second.close()
            while serving.listener.num_connections > 1:
                await _turn()
            assert (await (await serving.send(post(b"c"))).answer())[2] == b"c"

    run(main())


def test_bodies_held_together_are_bounded_and_given_back():
    """What waits for its answer is held; more than all may hold is 503, and room is made by answers and by leaving."""

    async def main() -> None:
        async with served(max_held_bytes=1000) as serving:
            holding = await serving.send(post(b"x" * 900, "/later"))
            await _until(serving, 1)
            refused = await serving.send(post(b"y" * 200))
            status, headers, _ = await refused.answer()
            assert (status, headers["retry-after"]) == (503, "1")
            serving.app.later.pop().set_result(b"")
            assert (await holding.answer())[0] == 200
            while serving.listener.num_connections > 1:
                await refused.close()
                await _turn()
            leaving = await serving.send(post(b"x" * 900, "/later"))
            await _until(serving, 2)
            await leaving.close()
            while serving.listener.num_connections > 1:
                await _turn()
            assert (await (await serving.send(post(b"z" * 900))).answer())[0] == 200

    run(main())


def test_one_body_is_taken_however_little_may_be_held():
    """A limit below the largest body would be none that a client could keep to."""

    async def main() -> None:
        async with served(max_held_bytes=10) as serving:
            assert (await (await serving.send(post(b"x" * 1000))).answer())[0] == 200

    run(main())


def test_headers_are_counted():
    """As many as are allowed pass, one more is 431."""

    async def main() -> None:
        async with served() as serving:
            for extra, status in ((MAX_HEADERS - 2, 200), (MAX_HEADERS - 1, 431)):
                lines = "".join(f"x-{i}: v\r\n" for i in range(extra))
                assert (await (await serving.send(post(b"", extra=lines))).answer())[0] == status

    run(main())


def test_requests_ahead_of_their_answers_are_bounded():
    """However small they are; those before get their answers."""

    async def main() -> None:
        async with served() as serving:
            client = await serving.send(post(path="/later") + post() * (MAX_PIPELINED + 1))
            await _until(serving, 1)
            while not serving.app.unread_statuses:
                await _turn()
            assert serving.app.unread_statuses == [429]
            serving.app.later.pop().set_result(b"")
            assert (await client.answer())[0] == 200

    run(main())


def test_a_request_refused_by_its_head_is_not_read():
    """Its body is not waited for, the connection ends, and nothing was asked of the application."""

    async def main() -> None:
        async with served() as serving:
            serving.app.refuse = lambda request: failure(401, "no") if request.path == "/no" else None
            client = await serving.send(b"POST /no HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\nabc")
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (401, "close")
            assert serving.app.requests == []
            assert (await (await serving.send(post(b"yes"))).answer())[2] == b"yes"

    run(main())


async def _turn() -> None:
    await asyncio.sleep(0)


async def _until(serving, count: int) -> None:
    """Wait until the application has got that many requests."""
    while len(serving.app.requests) < count:
        serving.app.came.clear()
        await serving.app.came.wait()
