"""Send inputs to a server and keep count of how it answered."""

import asyncio
import collections
import contextlib
import random
from typing import Any

import grpc
import grpc.aio

from bench.malformed import grpc as calls
from bench.malformed import http

ANSWER_S = 60.0
BUG_CODES = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS})
SENT_BY_CORE = "Received RST_STREAM"
"""What the client's library says where the server's refused a stream by HTTP/2's own means."""


class Tally:
    """What came back, by kind of input."""

    def __init__(self) -> None:
        self.inputs = 0
        self.unanswered = 0
        self.statuses: collections.Counter[tuple[str, str]] = collections.Counter()
        self.bugs: list[str] = []

    def note(self, kind: str, status: str, detail: str, bug: bool) -> None:
        self.statuses[kind, status] += 1
        if bug:
            self.bugs.append(f"{kind}: {status} {detail[:300]}")


async def over_http(host: str, port: int, seed: int, count: int, tally: Tally) -> None:
    """Send `count` inputs, one after the other, on as few connections as they allow."""
    rng, connection = random.Random(seed), None
    for _ in range(count):
        made = http.case(rng)
        tally.inputs += 1
        if connection is None or not made.framed:
            await _close(connection)
            connection = await asyncio.open_connection(host, port)
        reader, writer = connection
        try:
            async with asyncio.timeout(ANSWER_S):
                going_on = await _exchange(made, reader, writer, tally)
        except TimeoutError:
            tally.note(made.kind, "no answer", repr(made.data[:100]), bug=True)
            going_on = False
        if not going_on:
            await _close(connection)
            connection = None
    await _close(connection)


async def _exchange(
    made: http.Case, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tally: Tally
) -> bool:
    answered = 0
    try:
        writer.write(made.data)
        if not made.framed:
            writer.write_eof()
        await writer.drain()
        while True:
            status, goes_on = await _answer(reader, made.method == "HEAD")
            if status != 100:
                answered += 1
                tally.note(made.kind, str(status), repr(made.data[:200]), bug=status >= 500 and status != 503)
            if status != 100 and (made.framed or not goes_on):
                return goes_on and made.framed
    except (asyncio.IncompleteReadError, ConnectionError):
        if made.framed and not answered:
            tally.note(made.kind, "closed", repr(made.data[:200]), bug=True)
        elif not answered:
            tally.unanswered += 1
        return False


async def _answer(reader: asyncio.StreamReader, headless: bool) -> tuple[int, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    size = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    if not headless:
        await reader.readexactly(size)
    return status, "connection: close" not in head


async def _close(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if connection is not None:
        connection[1].close()
        with contextlib.suppress(ConnectionError):
            await connection[1].wait_closed()


async def over_grpc(address: str, seed: int, count: int, tally: Tally) -> None:
    """Make `count` calls, one after the other, on one channel."""
    rng = random.Random(seed)
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        for _ in range(count):
            made = calls.call(rng)
            tally.inputs += 1
            compression = grpc.Compression.Gzip if made.compressed else grpc.Compression.NoCompression
            method: Any = channel.unary_unary(made.path)
            try:
                await method(
                    made.message, timeout=made.timeout_s, compression=compression, metadata=made.metadata
                )
                tally.note(made.kind, "OK", "", bug=False)
            except grpc.aio.AioRpcError as error:
                bug = error.code() in BUG_CODES and not (error.details() or "").startswith(SENT_BY_CORE)
                tally.note(made.kind, error.code().name, f"{error.details()} {made.message[:100]!r}", bug)
