"""The connections to one endpoint under load: idle, opening, busy; requests wait where none is free."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tradewind.scale.wire import Connection, Target


class Generator(Protocol):
    """Who offers requests and hears what became of them."""

    def answer(self, ticket: int, status: int) -> None:
        """A request was answered."""

    def failure(self, ticket: int, why: str, age_s: float | None = None) -> None:
        """A request will have no answer; `age_s` where it was given up at that age."""


class Gate:
    """Sends each request at once, on an idle connection or a new one, up to `limit` connections."""

    def __init__(
        self, owner: Generator, target: Target, request: Callable[[int], bytes], limit: int, parser: Any
    ) -> None:
        self._owner, self._target, self._request, self._limit = owner, target, request, limit
        self._parser = parser
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._flying: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = self._open = 0
        self.opened = 0
        """Connections opened in all."""
        self.sent: Callable[[int], None] = lambda ticket: None

    def offer(self, ticket: int) -> bool:
        """Send a request, or have it wait; False when it waits because `limit` connections are busy."""
        if self._idle:
            self._send(self._idle.pop(), ticket)
            return True
        self._waiting.append(ticket)
        if self._open + self._opening >= self._limit:
            return False
        if self._opening < len(self._waiting):
            self._connect()
        return True

    async def close(self) -> None:
        """Close every connection; what is in flight is forgotten."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in [*self._idle, *self._flying.values()]:
            connection.closing = True
            connection.abort("")

    def give_up(self, age_s: Callable[[int], float], limit_s: float) -> None:
        """Drop what is too old; in flight and waiting are both ordered by due time, oldest first."""
        while self._waiting and age_s(self._waiting[0]) > limit_s:
            ticket = self._waiting.popleft()
            self._owner.failure(ticket, "given up unsent", age_s(ticket))
        for ticket in list(self._flying):
            if age_s(ticket) <= limit_s:
                break
            connection = self._flying.pop(ticket)
            self._owner.failure(ticket, "no answer", age_s(ticket))
            connection.abort("given up")

    def answered(self, connection: Connection, status: int) -> None:
        ticket, connection.ticket = connection.ticket, -1
        if ticket < 0:
            connection.closing = True
        else:
            del self._flying[ticket]
            self._owner.answer(ticket, status)
        if not connection.closing:
            self._release(connection)
        else:
            self._open -= 1
            self._refill()

    def lost(self, connection: Connection, why: str) -> None:
        self._open -= 1
        if connection.ticket in self._flying:
            del self._flying[connection.ticket]
            self._owner.failure(connection.ticket, why)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._refill()

    def _send(self, connection: Connection, ticket: int) -> None:
        self._flying[ticket] = connection
        self.sent(ticket)
        connection.send(ticket, self._request(ticket))

    def _connect(self) -> None:
        self._opening += 1
        task = self._loop.create_task(self._connected())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> None:
        host, port, _, tls = self._target
        try:
            _, connection = await self._loop.create_connection(
                lambda: Connection(self, self._parser), host, port, ssl=tls
            )
        except OSError as error:
            self._opening -= 1
            if self._waiting:
                self._owner.failure(self._waiting.popleft(), f"connect: {type(error).__name__}")
            return
        self._opening -= 1
        self._open += 1
        self.opened += 1
        self._release(connection)

    def _release(self, connection: Connection) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _refill(self) -> None:
        if self._opening < len(self._waiting) and self._open + self._opening < self._limit:
            self._connect()
