"""Fetches gathered into round trips, over a store that answers when the test says so."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CollectorRegistry

from tests.serve.features.scripted import Pauses, ScriptedStore, samples
from tradewind.serve.features import Fetched, Outcome, encode
from tradewind.serve.features.base import StoreDown
from tradewind.serve.features.batches import MAX_USERS, SLICE, Batches
from tradewind.serve.features.breaker import Breaker
from tradewind.serve.features.metrics import FeatureMetrics

PATIENT_S = 60.0


class Gathered:
    """Batches over a scripted store."""

    def __init__(self, limit_s: float = PATIENT_S) -> None:
        self.store, self.pauses, self.registry = ScriptedStore(), Pauses(), CollectorRegistry()
        metrics = FeatureMetrics(self.registry)
        breaker = Breaker(self.store.check, metrics, self.pauses)
        self.batches = Batches("scripted", self.store, metrics, limit_s, breaker)

    def fetch(self, user: str, wait_s: float = PATIENT_S) -> asyncio.Future[Fetched]:
        found = self.batches.fetch(user, time.monotonic() + wait_s)
        assert isinstance(found, asyncio.Future)
        return found

    async def answer(self, *values: bytes | None) -> None:
        (await self.store.asked.get()).set_result(values)

    def counted(self, name: str) -> float:
        return samples(self.registry).get(name, 0.0)


def gathered(use: Callable[[Gathered], Awaitable[None]], limit_s: float = PATIENT_S) -> None:
    """Use batches until they are closed."""

    async def scenario() -> None:
        made = Gathered(limit_s)
        try:
            await use(made)
        finally:
            await made.batches.close()
            assert made.store.closed

    asyncio.run(scenario())


def test_all_that_are_asked_for_during_a_round_trip_go_into_the_next():
    """Each user once, however many want it; every one gets their own."""

    async def use(made: Gathered) -> None:
        first = [made.fetch("a"), made.fetch("b")]
        trip = await made.store.asked.get()
        later = [made.fetch(user) for user in ("c", "a", "c")]
        assert made.store.users == [["a", "b"]]
        trip.set_result([encode(["i1"]), None])
        await made.answer(encode(["i3"]), encode(["i4"]))
        assert made.store.users == [["a", "b"], ["c", "a"]]
        assert [(await future).outcome for future in first] == [Outcome.HIT, Outcome.MISSING]
        stored = [(await future).stored for future in later]
        assert [s and list(s.history.items) for s in stored] == [["i3"], ["i4"], ["i3"]]
        assert (made.counted("batch_users_count scripted"), made.counted("batch_users_sum scripted")) == (
            2,
            4,
        )
        assert (made.counted("fetches_total hit"), made.counted("fetches_total missing")) == (4, 1)

    gathered(use)


def test_a_round_trip_is_bounded():
    """What is left goes into the one after it."""

    async def use(made: Gathered) -> None:
        futures = [made.fetch(f"u{n}") for n in range(2 * MAX_USERS + 1)]
        for size in (MAX_USERS, MAX_USERS, 1):
            await made.answer(*[None] * size)
        assert [len(users) for users in made.store.users] == [MAX_USERS, MAX_USERS, 1]
        assert {(await future).outcome for future in futures} == {Outcome.MISSING}

    gathered(use)


def test_others_are_heard_between_those_who_are_told():
    """A large round trip ends in slices, each of which leads to work."""

    async def use(made: Gathered) -> None:
        futures = [made.fetch(str(n)) for n in range(3 * SLICE)]
        counts: list[int] = []

        def look() -> None:
            counts.append(sum(future.done() for future in futures))
            if not all(future.done() for future in futures):
                asyncio.get_running_loop().call_soon(look)

        look()
        await made.answer(*[None] * len(futures))
        await asyncio.wait(futures)
        assert {SLICE, 2 * SLICE, 3 * SLICE} <= set(counts)

    gathered(use)


def test_who_has_no_time_left_does_without():
    """Whoever comes too late to be asked for, and whoever's time is over before the answer, which is then dropped."""

    async def use(made: Gathered) -> None:
        assert made.batches.fetch("a", time.monotonic() - 1.0) == Fetched(Outcome.LATE)
        late, patient = made.fetch("a", 0.001), made.fetch("a")
        found = await late
        assert (found.outcome, found.stored) == (Outcome.LATE, None)
        assert found.seconds >= 0.001
        behind = made.fetch("b", 0.001)
        assert (await behind).outcome is Outcome.LATE
        await made.answer(encode(["i1"]))
        assert (await patient).outcome is Outcome.HIT
        assert made.store.users == [["a"]], "b was asked for though nobody waited any more"
        assert made.counted("fetches_total late") == 3

    gathered(use)


def test_who_left_is_not_asked_for():
    async def use(made: Gathered) -> None:
        first = made.fetch("a")
        trip = await made.store.asked.get()
        gone, stays = made.fetch("b"), made.fetch("c")
        gone.cancel()
        first.cancel()
        with structlog.testing.capture_logs() as lines:
            trip.set_result([b"no document, but nobody is there to miss it"])
            await made.answer(None)
            assert (await stays).outcome is Outcome.MISSING
        assert made.store.users == [["a"], ["c"]]
        assert lines == []

    gathered(use)


def test_a_malformed_document_is_as_good_as_none():
    """Counted each time, said once in a while, and what is in it is not said."""

    async def use(made: Gathered) -> None:
        values = [
            b'{"history": [{"item": "a", "timestamp": "secret"}]}',
            b"{",
            b'{"user": {"age": 1e99}}',
            b"\xff",
        ]
        with structlog.testing.capture_logs() as lines:
            futures = [made.fetch(str(n)) for n in range(len(values))]
            await made.answer(*values)
            found = [await future for future in futures]
        assert [(f.outcome, f.stored) for f in found] == [(Outcome.MALFORMED, None)] * len(values)
        assert made.counted("fetches_total malformed") == len(values)
        assert [line["event"] for line in lines] == ["malformed features"]
        assert "secret" not in str(lines)

    gathered(use)


def test_a_store_that_fails_is_asked_no_more_until_it_is_back():
    """Those who wait go on without it at once, and those who come do not wait."""

    async def use(made: Gathered) -> None:
        first = made.fetch("a")
        trip = await made.store.asked.get()
        behind = made.fetch("b")
        made.store.down = StoreDown("lost")
        trip.set_exception(StoreDown("lost"))
        assert [(await future).outcome for future in (first, behind)] == [Outcome.FAILED] * 2
        assert made.batches.fetch("c", time.monotonic() + PATIENT_S) == Fetched(Outcome.DOWN)
        assert (made.counted("down"), made.counted("fetches_total down")) == (1, 1)
        made.store.down = None
        (await made.pauses.begun.get()).set_result(None)
        while made.counted("down"):
            await asyncio.sleep(0)
        again = made.fetch("c")
        await made.answer(encode())
        assert (await again).outcome is Outcome.HIT
        assert made.store.users == [["a"], ["c"]]

    gathered(use)


def test_a_round_trip_that_takes_too_long_is_given_up():
    """The store is taken to be down, though nobody was patient enough to hear that."""

    async def use(made: Gathered) -> None:
        impatient = made.fetch("a", 0.001)
        trip = await made.store.asked.get()
        behind = made.fetch("b")
        assert (await impatient).outcome is Outcome.LATE
        assert (await behind).outcome is Outcome.FAILED
        assert trip.cancelled()
        assert made.counted("down") == 1

    gathered(use, limit_s=0.2)
