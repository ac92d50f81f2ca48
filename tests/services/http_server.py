"""A tiny real HTTP/1.1 server whose delays are known: `python http_server.py '{"delay_ms": 5}'`.

Prints `port N`, then serves until stdin closes. Rules: `delay_ms` for every answer; `status` of every
answer; `refuse_every` answers each n-th with 429; `close_every` closes the connection after each n-th;
`stall_at_s`, `stall_s` freeze the whole server once; `slow_every`, `slow_ms` delay each n-th;
`garbage` answers with something that is not HTTP; `mute` never answers; `answer` is the body of every answer.
GET /seen returns {"requests": n, "refused": n, "stalls": n, "deadlines": [...]}.
"""

import asyncio
import json
import sys
import time
from typing import Any


class Server:
    """Answers by the rules and counts every fault it injects."""

    def __init__(self, rules: dict[str, Any]) -> None:
        self.rules = rules
        self.body = str(rules.get("answer", "{}")).encode()
        self.seen: dict[str, Any] = {"requests": 0, "refused": 0, "stalls": 0, "deadlines": [], "bodies": []}

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers requests on one connection until either side closes it."""
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if head.startswith("get /seen"):
            writer.write(_response(200, json.dumps(self.seen).encode()))
            return False
        self.seen["requests"] += 1
        self.seen["deadlines"] = sorted({*self.seen["deadlines"], fields.get("x-deadline-ms", "")})
        self.seen["bodies"] = sorted({*self.seen["bodies"], body.decode()})[:10]
        return await self._answer(writer, self.seen["requests"])

    async def _answer(self, writer: asyncio.StreamWriter, number: int) -> bool:
        rules = self.rules
        if rules.get("mute"):
            await asyncio.sleep(3600)
        delay_ms = rules["slow_ms"] if number % rules.get("slow_every", number + 1) == 0 else None
        delay_ms = rules.get("delay_ms", 0) if delay_ms is None else delay_ms
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        if rules.get("garbage"):
            writer.write(b"hello there\r\n\r\n")
            return False
        refuse = number % rules.get("refuse_every", number + 1) == 0
        self.seen["refused"] += refuse
        keep = bool(number % rules.get("close_every", number + 1))
        writer.write(_response(429 if refuse else rules.get("status", 200), self.body, keep))
        await writer.drain()
        return keep

    def stall(self) -> None:
        """Freezes every connection at once, as a long collection or a page fault storm would."""
        self.seen["stalls"] += 1
        time.sleep(self.rules["stall_s"])


def _response(status: int, body: bytes, keep: bool = True) -> bytes:
    connection = b"keep-alive" if keep else b"close"
    return b"HTTP/1.1 %d X\r\nconnection: %s\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        connection,
        len(body),
        body,
    )


async def main(rules: dict[str, Any]) -> None:
    """Serves until stdin closes; the stall clock starts with the first connection."""
    service = Server(rules)
    loop = asyncio.get_running_loop()
    first = loop.create_future()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "stall_at_s" in rules and not first.done():
            first.set_result(None)
            loop.call_later(rules["stall_at_s"], service.stall)
        await service.serve_connection(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
