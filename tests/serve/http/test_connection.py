"""Connections over real sockets: order, limits, and clients that stall, lie or leave."""

import asyncio
import gc
import time

import pytest

from tests.serve.http.listening import post, run, served
from tradewind.serve.http.connection import Connection


def test_requests_on_one_connection_are_answered_in_turn():
    """The connection stays open, and each answer belongs to its request."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"one", "/a?q=1"))
            status, headers, body = await client.answer()
            assert (status, headers["x-path"], body) == (200, "/a", b"one")
            assert headers["date"].endswith("GMT")
            client.send(post(b"two"))
            assert (await client.answer())[2] == b"two"

    run(scenario())


def test_pipelined_requests_are_answered_in_order():
    """Hundreds at once, some of which take their time: the answers come in the order of the requests."""

    async def scenario():
        async with served() as serving:
            bodies = [b"%d" % i for i in range(300)]
            client = await serving.send(
                b"".join(post(b, "/later" if i % 100 == 5 else "/") for i, b in enumerate(bodies))
            )
            for i, body in enumerate(bodies):
                while i % 100 == 5 and not serving.app.later:
                    serving.app.came.clear()
                    await serving.app.came.wait()
                if i % 100 == 5:
                    serving.app.later.pop().set_result(body)
                assert (await client.answer())[2] == body

    run(scenario())


def test_a_body_in_chunks_is_one_body():
    """Transfer-Encoding: chunked, cut anywhere."""

    async def scenario():
        async with served() as serving:
            client = await serving.connect()
            for piece in (b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-enc", b"oding: chunked\r\n\r\n3\r\nab"):
                client.send(piece)
                await client.writer.drain()
            client.send(b"c\r\n2\r\nde\r\n0\r\n\r\n")
            assert (await client.answer())[2] == b"abcde"

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" + b"8000\r\n" + bytes(1 << 15) + b"\r\n" * 1
        + b"8001\r\n" + bytes((1 << 15) + 1) + b"\r\n",
    ],
    ids=["stated", "stated-expecting", "chunked"],
)  # fmt: skip
def test_a_body_over_the_limit_is_refused_before_it_has_come(data):
    """413 as soon as the limit is known to be passed, whether or not the rest ever comes; then the end."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(data)
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (413, "close")
            assert b"larger than 65536 bytes" in body
            assert await client.rest() == b""
            assert serving.app.requests == []
            assert serving.app.unread_statuses == [413]

    run(scenario())


@pytest.mark.parametrize(
    "piece", [b"1\r\nx\r\n", b"0\r\n" + b"x-trailer: y\r\n" * 1000, b"1;ext=" + b"e" * 5000 + b"\r\nx\r\n"]
)
def test_a_request_that_is_large_in_another_way_than_by_its_body_is_refused(piece):
    """Tiny chunks, trailers and chunk extensions on end: what is kept is bounded, and so is what is read."""

    async def scenario():
        async with served(max_body_bytes=1000, read_s=20.0) as serving:
            client = await serving.send(
                b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" + piece
            )
            answer = asyncio.ensure_future(client.answer())
            more = piece.partition(b"0\r\n")[2] or piece
            while not answer.done():
                client.send(more)
                await asyncio.wait([answer], timeout=0)
            assert answer.result()[0] in (400, 413)

    run(scenario())


def test_a_client_that_sends_all_of_a_body_too_large_still_reads_why():
    """What comes after the refusal is read and dropped: the answer is not lost in a reset."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(bytes(8 << 20)))
            await client.writer.drain()
            assert (await client.answer())[0] == 413

    run(scenario())


def test_a_body_longer_than_stated_ends_the_connection():
    """What follows is no request: the first is answered, the rest is a 400."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"abc") + b"defgh \r\n\r\n")
            assert (await client.answer())[::2] == (200, b"abc")
            status, headers, body = await client.answer()
            assert (status, headers["content-type"]) == (400, "application/json")
            assert b"not HTTP" in body
            assert await client.rest() == b""

    run(scenario())


STALLS = {
    "silent": (b"", b""),
    "in the head": (b"POST / HTTP/1.1\r\nhost: h\r\nx-slow", b"408"),
    "in the body": (b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc", b"408"),
    "in a chunk": (b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", b"408"),
    "after an answer": (post(b"x"), b"200"),
    "in a second request": (post(b"x") + b"POST / HT", b"408"),
}


@pytest.mark.parametrize("name", STALLS)
def test_a_client_that_stalls_is_given_up(name):
    """Wherever it stops, its connection ends after the time it has, with a 408 if a request had begun."""
    data, expected = STALLS[name]

    async def scenario():
        async with served(read_s=0.2, keep_alive_s=0.2) as serving:
            client = await serving.send(data)
            answer = await client.rest()
            assert expected in answer
            assert (b"408" in answer) is (expected == b"408")

    run(scenario())


def test_a_client_that_trickles_gains_no_time():
    """One byte every few milliseconds does not keep a request open beyond its time."""

    async def scenario():
        async with served(read_s=0.3) as serving:
            client = await serving.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 60000\r\n\r\n")
            start = time.monotonic()
            answer = asyncio.ensure_future(client.answer())
            while not answer.done():
                client.send(b"x")
                await asyncio.wait([answer], timeout=0.01)
            assert answer.result()[0] == 408
            assert time.monotonic() - start < 5.0

    run(scenario())


def test_a_client_that_does_not_read_is_cut_off():
    """An answer nobody takes does not hold its connection for ever, nor does it grow without bound."""

    async def scenario():
        async with served(write_s=0.2) as serving:
            serving.app.large = bytes(1 << 20)
            client = await serving.send(post(path="/large") * 100)
            client.writer.transport.pause_reading()
            await serving.app.came.wait()
            await serving.listener.drain(20.0)
            assert serving.listener.num_connections == 0
            assert len(serving.app.requests) < 50

    run(scenario())


def test_a_head_without_end_is_refused():
    """431 when the head alone is larger than any honest one."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"a" * 100_000)
            assert (await client.answer())[0] == 431

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_not_http_is_refused(data):
    """400 in JSON, then the end; lengths that contradict each other are never guessed at."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(data)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (400, "close")
            assert await client.rest() == b""
            assert serving.app.requests == []

    run(scenario())


def test_a_client_that_leaves_is_noticed():
    """Its request is cancelled while it is being answered."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(path="/later"))
            await serving.app.came.wait()
            await client.close()
            await asyncio.wait_for(serving.app.left.wait(), 20)
            serving.app.later[0].set_result(b"nobody reads this")
            other = await serving.send(post(b"next"))
            assert (await other.answer())[2] == b"next"
            assert [request.path for request in serving.app.requests] == ["/later", "/"]

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n",
    ],
    ids=["1.0", "close", "upgrade"],
)
def test_a_connection_ends_after_its_answer_where_it_cannot_go_on(data):
    """HTTP/1.0, `Connection: close`, and a protocol we do not speak: one answer, then the end."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(data + b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.rest() == b""

    run(scenario())


def test_nothing_is_answered_after_an_answer_that_ends_the_connection():
    """What came behind its request, in the same piece even, is asked again elsewhere."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"one", "/last") + post(b"two") + post(b"three"))
            status, headers, body = await client.answer()
            assert (status, headers["connection"], body) == (200, "close", b"one")
            assert await client.rest() == b""
            assert len(serving.app.requests) == 1

    run(scenario())


def test_head_has_no_body_and_expect_is_answered_first():
    """HEAD states the length it leaves out; `Expect: 100-continue` gets its go-ahead before the body is sent."""

    async def scenario():
        async with served() as serving:
            serving.app.large = b"12345"
            client = await serving.send(b"HEAD /large HTTP/1.1\r\nhost: h\r\n\r\n")
            status, headers, _ = await client.answer(with_body=False)
            assert (status, headers["content-length"]) == (200, "5")
            client.send(b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
            assert (await client.answer())[0] == 100
            client.send(b"abc")
            assert (await client.answer())[::2] == (200, b"abc")

    run(scenario())


def _connections() -> int:
    return sum(type(thing) is Connection for thing in gc.get_objects())


def test_a_connection_that_has_ended_leaves_nothing_for_the_garbage_collector():
    """Thousands of short ones a second would stop all others for as long as it takes to find what they left."""

    async def scenario():
        async with served() as serving:
            client = await serving.send(post(b"one"))
            await client.answer()
            assert _connections() == 1
            client.writer.close()
            while serving.listener.num_connections:
                await asyncio.sleep(0)
            for _ in range(3):  # the loop lets go of the transport a round later
                await asyncio.sleep(0)
            assert _connections() == 0

    gc.collect()
    gc.disable()
    try:
        run(scenario())
    finally:
        gc.enable()
