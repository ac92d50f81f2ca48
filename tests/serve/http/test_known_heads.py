"""Requests that begin like the last one on their connection are not parsed again, and nobody can tell."""

import asyncio
import itertools
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.http.listening import Echo, post, run, served
from tradewind.serve.http import Limits, Turns
from tradewind.serve.http.connection import MAX_KNOWN_BYTES, Connection, Shared

CHUNKED = b"POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
REQUESTS = (
    post(b"one"),
    post(b"two"),
    post(b"\r\n\r\nfour\r\n\r\n"),
    post(b"one", extra="x: 1\r\n"),
    post(b"", "/empty"),
    b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n",
    b"\r\n" + post(b"six"),
    CHUNKED,
)


class _Transport:
    """Takes what is written."""

    def __init__(self, sock: socket.socket) -> None:
        self.written = b""
        self._socket = sock

    def get_extra_info(self, name: str) -> socket.socket:
        return self._socket

    def write(self, data: bytes) -> None:
        self.written += data

    def is_reading(self) -> bool:
        return True


async def _answers(pieces: Sequence[bytes], *, may_refuse: bool) -> tuple[bytes, list[Any]]:
    """What a connection writes when it is sent these pieces, and the requests that it had answered."""
    app = Echo()
    app.may_refuse = may_refuse
    with socket.socket() as sock:
        connection, transport = Connection(Shared(app, Limits(1 << 16), Turns())), _Transport(sock)
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
    return transport.written, app.requests


@given(st.lists(st.sampled_from(REQUESTS), max_size=8), st.lists(st.integers(0, 400), max_size=6), st.data())
def test_answers_are_the_same_however_requests_repeat_and_are_cut(requests, cuts, data):
    """As those of a connection that parses everything: cut between requests, inside them, or not at all."""
    stream = b"".join(requests)
    ends = [sum(map(len, requests[:n])) for n in range(len(requests) + 1)]
    chosen = data.draw(st.sets(st.sampled_from(ends)))
    bounds = sorted({0, len(stream), *chosen, *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    known, _ = asyncio.run(_answers(pieces, may_refuse=False))
    parsed, _ = asyncio.run(_answers(pieces, may_refuse=True))
    assert known == parsed
    assert known.count(b"HTTP/1.1 200") == len(requests)


def test_the_second_request_with_a_head_is_known_by_it():
    """With its own body, and the headers of the first."""
    pieces = [post(b"one"), post(b"two"), post(b"three"), post(b"seven")]
    _, requests = asyncio.run(_answers(pieces, may_refuse=False))
    assert [request.body for request in requests] == [b"one", b"two", b"three", b"seven"]
    assert [request.head is not None for request in requests] == [False, True, False, True]
    assert requests[1].headers == requests[0].headers == {b"host": b"h", b"content-length": b"3"}
    assert (requests[1].method, requests[1].path, requests[1].keep_alive) == ("POST", "/", True)


@pytest.mark.parametrize(
    "request_",
    [
        CHUNKED,
        post(b"one", extra="expect: 100-continue\r\n"),
        post(b"one", extra=f"x: {'y' * MAX_KNOWN_BYTES}\r\n"),
    ],
    ids=["chunked", "expecting", "long"],
)
def test_heads_that_say_more_than_their_bytes_are_parsed_each_time(request_):
    """So are long ones, which would be kept for as long as their connection."""
    _, requests = asyncio.run(_answers([request_] * 3, may_refuse=False))
    assert [request.head for request in requests] == [None] * 3


def test_a_body_that_looks_like_a_request_is_a_body():
    """Though it comes by itself, and begins like the last request."""
    inner = post(b"one")
    outer = post(inner)
    pieces = [inner, outer[: -len(inner)], inner, inner]
    _, requests = asyncio.run(_answers(pieces, may_refuse=False))
    assert [request.body for request in requests] == [b"one", inner, b"one"]


def test_a_head_goes_with_the_length_that_it_states():
    """What came with another request in one piece is not measured by that one's body."""
    two = post(b"one") + post(b"four")
    _, requests = asyncio.run(
        _answers([two, two[: len(post(b"one")) + 1], two[len(post(b"one")) + 1 :]], may_refuse=False)
    )
    assert [request.body for request in requests] == [b"one", b"four"] * 2


def test_where_heads_may_be_refused_they_are_parsed_each_time():
    """A key in one may be taken back meanwhile."""
    _, requests = asyncio.run(_answers([post(b"one")] * 2, may_refuse=True))
    assert [request.head for request in requests] == [None, None]


def test_what_a_known_head_held_is_given_back_with_its_answer():
    """The body, and no more, though nobody has looked at it."""

    async def scenario():
        async with served() as serving:
            client = await serving.connect()
            for _ in range(3):
                serving.app.came.clear()
                client.send(post(b"one", "/later"))
                await serving.app.came.wait()
                serving.app.later.pop().set_result(b"")
                assert (await client.answer())[0] == 200
            assert serving.app.requests[-1].head is not None
            assert serving.listener._shared.held_bytes == 0

    run(scenario())


def test_known_heads_count_as_what_is_held():
    """Bodies that wait for their answer are bounded together, whether their heads were parsed or not."""

    async def ask(serving, client):
        serving.app.came.clear()
        client.send(post(bytes(1000), "/later"))
        await serving.app.came.wait()

    async def scenario():
        async with served(max_held_bytes=3000) as serving:
            clients = [await serving.connect() for _ in range(4)]
            for client in clients:
                await ask(serving, client)
                serving.app.later.pop().set_result(b"")
                assert (await client.answer())[0] == 200
            for client in clients[:3]:
                await ask(serving, client)
            assert serving.app.requests[-1].head is not None
            assert serving.listener._shared.held_bytes == 3000
            clients[3].send(post(bytes(1000), "/later"))
            assert (await clients[3].answer())[0] == 503
            for waiting in serving.app.later:
                waiting.set_result(b"")
            assert (await clients[0].answer())[0] == 200

    run(scenario())
