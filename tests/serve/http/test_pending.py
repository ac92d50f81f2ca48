"""Answers that take several steps: what the first one waits for leads to something else to wait for."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.serve.http.listening import Served, post, run, served
from tradewind.serve.http import Pending, Request, Response

Future = asyncio.Future[bytes]


class Steps:
    """Answers every request in two steps, and says how each of both ended."""

    def __init__(self, serving: Served) -> None:
        self.first: asyncio.Queue[Future] = asyncio.Queue()
        self.second: asyncio.Queue[Future] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        serving.app.answer = self.answer

    def answer(self, request: Request) -> Response | Pending:
        return self._wait(self.first, self.go_on)

    def go_on(self, future: Future) -> Response | Pending:
        if future.cancelled():
            self.ended.put_nowait("left in the first")
            return Response(499, b"")
        return self._wait(self.second, self.finish)

    def finish(self, future: Future) -> Response:
        self.ended.put_nowait("left in the second" if future.cancelled() else "answered")
        return Response(499, b"") if future.cancelled() else Response(200, future.result())

    def _wait(self, made: "asyncio.Queue[Future]", respond: Callable[[Any], Response | Pending]) -> Pending:
        future: Future = asyncio.get_running_loop().create_future()
        made.put_nowait(future)
        return Pending(future, respond, future.cancel)


def test_an_answer_may_take_two_steps():
    """Requests behind it wait for both, and it is the second that is sent."""

    async def scenario() -> None:
        async with served() as serving:
            steps = Steps(serving)
            client = await serving.send(post(b"one") + post(b"two"))
            for said in (b"1", b"2"):
                (await steps.first.get()).set_result(b"not this")
                assert steps.first.empty()
                (await steps.second.get()).set_result(said)
                assert (await client.answer())[2] == said
                assert await steps.ended.get() == "answered"

    run(scenario())


def test_a_client_may_leave_in_either_step():
    """What it waited for then is given up, and the answer is asked for once, so that it can be counted."""

    async def scenario() -> None:
        async with served() as serving:
            steps = Steps(serving)
            client = await serving.send(post(b"one"))
            first = await steps.first.get()
            await client.close()
            assert await steps.ended.get() == "left in the first"
            assert first.cancelled()
            client = await serving.send(post(b"two"))
            (await steps.first.get()).set_result(b"")
            second = await steps.second.get()
            await client.close()
            assert await steps.ended.get() == "left in the second"
            assert second.cancelled()
            assert steps.ended.empty()

    run(scenario())


def test_a_client_that_leaves_between_the_steps_gives_up_the_second():
    """Its first step was over when it left, and nobody has looked yet."""

    async def scenario() -> None:
        async with served() as serving:
            steps = Steps(serving)
            await serving.send(post(b"one"))
            first = await steps.first.get()
            (connection,) = serving.listener._shared.connections
            connection._transport.abort()  # told so in the loop's next turn, as of the first step: in this order
            first.set_result(b"")
            second = await steps.second.get()
            assert await steps.ended.get() == "left in the second"
            assert second.cancelled()

    run(scenario())
