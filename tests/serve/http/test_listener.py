"""Draining: what was asked is answered, and the end comes."""

import asyncio
import time

import pytest

from tests.serve.http.listening import post, run, served


def test_draining_answers_what_is_in_flight_and_closes_the_rest():
    """An idle connection closes, a request under way is answered with `Connection: close`, then all is over."""

    async def scenario():
        async with served() as serving:
            idle = await serving.send(post(b"before"))
            await idle.answer()
            busy = await serving.send(post(path="/later"))
            while len(serving.app.requests) < 2:
                serving.app.came.clear()
                await serving.app.came.wait()
            draining = asyncio.ensure_future(serving.listener.drain(20.0))
            assert await idle.rest() == b""
            serving.app.later[0].set_result(b"after")
            status, headers, body = await busy.answer()
            assert (status, headers["connection"], body) == (200, "close", b"after")
            await draining
            assert serving.listener.num_connections == 0
            with pytest.raises(OSError):
                await serving.connect()

    run(scenario())


def test_draining_waits_for_a_request_that_is_still_arriving():
    """Half a request is not dropped."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"abcdef")[:-3])
            probe = await serving.send(post())
            await probe.answer()  # once this is answered, the half before it has been read
            draining = asyncio.ensure_future(serving.listener.drain(20.0))
            assert await probe.rest() == b""
            client.send(b"def")
            assert (await client.answer())[::2] == (200, b"abcdef")
            await draining

    run(scenario())


def test_what_has_arrived_when_draining_begins_is_answered():
    """Bytes that wait in the kernel, on an idle connection or a new one, count as asked."""

    async def scenario():
        async with served() as serving:
            idle = await serving.send(post(b"first"))
            await idle.answer()
            idle.send_now(post(b"second"))
            await serving.listener.drain(0.5)
            assert (await idle.answer())[::2] == (200, b"second")

    run(scenario())


def test_a_connection_opened_just_before_draining_may_still_ask():
    """What it was opened for comes a moment later and is answered; one that asks nothing is closed soon."""

    async def scenario():
        async with served() as serving:
            asking, silent = await serving.connect(), await serving.connect()
            while serving.listener.num_connections < 2:
                await asyncio.sleep(0)
            draining = asyncio.ensure_future(serving.listener.drain(20.0))
            await asyncio.sleep(0)
            asking.send(post(b"now"))
            assert (await asking.answer())[::2] == (200, b"now")
            assert await silent.rest() == b""
            await asking.close()
            await draining

    run(scenario())


def test_draining_ends_when_its_time_is_up():
    """A request that is never answered does not hold the process."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(path="/later"))
            await serving.app.came.wait()
            await serving.listener.drain(0.1)
            assert serving.listener.close() == 1
            assert await client.reader.read() == b""
            assert serving.app.left.is_set()

    run(scenario())


def test_a_request_is_known_to_have_arrived_before_it_was_read():
    """A loop that was held up for a while dates the requests of that time back to when they came."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"warm"))
            await client.answer()
            client.send_now(post(b"late"))
            sent_s = time.monotonic()
            while time.monotonic() < sent_s + 0.1:
                pass  # the loop is busy with something else
            await client.answer()
            read_s = time.monotonic()
            arrived_s = serving.app.requests[-1].arrived_s
            assert sent_s - 0.01 <= arrived_s <= read_s - 0.08

    run(scenario())
