"""Who is answered first, of all that has come in."""

import asyncio

from tests.serve.http.listening import post, run, served
from tradewind.serve.classes import Guarantee
from tradewind.serve.http import Request, Turn, Turns
from tradewind.serve.http.turns import SLICE_S


class Clock:
    """Time that passes as requests take it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Requests that take a while each, and the order in which they were begun."""

    def __init__(self, shares: tuple[float, ...]) -> None:
        self.clock = Clock()
        self.turns = Turns(Guarantee(shares, 0.05), self.clock)
        self.order: list[str] = []

    def wait(self, name: str, rank: int, due_s: float = 0.0, takes_s: float = 0.0) -> None:
        def begin() -> None:
            self.clock.now += takes_s
            self.order.append(name)

        self.turns.wait(Turn(rank, due_s), begin)


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_most_important_goes_first_and_then_the_earliest_due():
    """Whatever the order in which they came; among equals who came first."""

    async def scenario() -> list[str]:
        asked = Asked((0.5, 0.3))
        asked.wait("late", 1, 9.0)
        asked.wait("early", 1, 1.0)
        asked.wait("early too", 1, 1.0)
        asked.wait("important", 0, 20.0)
        assert asked.order == []
        await _rounds(1)
        return asked.order

    assert asyncio.run(scenario()) == ["important", "early", "early too", "late"]


def test_an_important_request_waits_for_one_slice_of_others():
    """It comes while a hundred wait, and goes before all that the slice has not begun."""

    async def scenario() -> list[str]:
        asked = Asked((0.5, 0.3))
        for number in range(100):
            asked.wait(f"other {number}", 1, takes_s=0.3 * SLICE_S)
        await _rounds(1)
        assert len(asked.order) == 4
        asked.wait("important", 0)
        await _rounds(200)
        return asked.order

    order = asyncio.run(scenario())
    assert order.index("important") == 4
    assert len(order) == 101


def test_a_class_beyond_its_share_leaves_others_theirs():
    """The top class asks for all the time there is, again and again; the class below has its three tenths of it."""

    async def scenario() -> tuple[int, int]:
        asked = Asked((0.5, 0.3))
        for number in range(3000):
            asked.wait(f"top {number}", 0, takes_s=SLICE_S / 2)
            asked.wait(f"below {number}", 1, takes_s=SLICE_S / 2)
        await _rounds(1000)
        top = sum(name.startswith("top") for name in asked.order)
        return top, len(asked.order) - top

    top, below = asyncio.run(scenario())
    assert 0.29 < below / (top + below) < 0.33


def test_a_request_that_fails_does_not_take_the_others_turn():
    """Whoever waits behind it is begun all the same."""

    async def scenario() -> list[str]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        asked = Asked((1.0,))
        asked.turns.wait(Turn(0, 0.0), _fail)
        asked.wait("next", 0, 1.0)
        await _rounds(3)
        return asked.order

    assert asyncio.run(scenario()) == ["next"]


def _fail() -> None:
    raise RuntimeError("on purpose")


def test_of_what_is_there_the_most_important_is_answered_first():
    """Over real sockets: all of it has come before the listener looks."""

    async def scenario() -> None:
        async with served() as serving:
            serving.app.turn = _by_body
            clients = [await serving.send(post(b"2")) for _ in range(3)]
            for client in clients:
                await client.answer()
            serving.app.requests.clear()
            for client, body in zip(clients, (b"2", b"1", b"0"), strict=True):
                client.send_now(post(body))
            for client in clients:
                await client.answer()
            assert [request.body for request in serving.app.requests] == [b"0", b"1", b"2"]

    run(scenario())


def _by_body(request: Request) -> Turn:
    return Turn(0, float(request.body))


def test_a_client_that_leaves_before_its_turn_is_not_answered():
    """Its request is never begun, and what it held is given back."""

    async def scenario() -> None:
        async with served() as serving:
            serving.app.turn = _by_body
            turns = serving.listener._shared.turns
            turns._asked = True  # it believes that the loop will come back to it
            client = await serving.send(post(b"7"))
            while not turns._waiting[0]:
                await asyncio.sleep(0)
            client.writer.transport.abort()
            while serving.listener.num_connections:
                await asyncio.sleep(0)
            turns._take()
            assert serving.app.requests == []
            assert serving.listener._shared.held_bytes == 0

    run(scenario())
