"""The breaker: nobody asks a store that is down but one task, less and less often."""

import asyncio
import itertools

import pytest
import structlog
from prometheus_client import CollectorRegistry

from tests.serve.features.scripted import Pauses, ScriptedStore, samples
from tradewind.serve.features import breaker as breakers
from tradewind.serve.features.base import StoreDown
from tradewind.serve.features.breaker import CALM_S, FIRST_S, LONGEST_S, Breaker, pauses_s
from tradewind.serve.features.metrics import FeatureMetrics


class Watched:
    """A breaker over a scripted store, with pauses that the test ends."""

    def __init__(self) -> None:
        self.store, self.pauses, self.registry = ScriptedStore(), Pauses(), CollectorRegistry()
        self.now = 0.0
        self.breaker = Breaker(
            self.store.check, FeatureMetrics(self.registry), self.pauses, clock=lambda: self.now
        )

    @property
    def down(self) -> float:
        return samples(self.registry)["down"]


def test_a_store_that_is_there_leaves_it_closed():
    async def scenario() -> None:
        watched = Watched()
        await watched.breaker.start()
        assert (watched.breaker.open, watched.down, watched.store.num_checks) == (False, 0, 1)
        await watched.breaker.close()

    asyncio.run(scenario())


def test_it_looks_by_itself_until_the_store_is_back():
    """One look at a time, each counted; said once when it goes, and once when it comes."""

    async def scenario() -> None:
        watched = Watched()
        watched.store.down = StoreDown("refused")
        with structlog.testing.capture_logs() as lines:
            await watched.breaker.start()
            watched.breaker.trip(StoreDown("again"))
            for looks in (1, 2, 3):
                assert (watched.breaker.open, watched.down) == (True, 1)
                pause = await watched.pauses.begun.get()
                if looks == 3:
                    watched.store.down = None
                pause.set_result(None)
            while watched.breaker.open:
                await asyncio.sleep(0)
            assert watched.down == 0
            assert watched.store.num_checks == 1 + samples(watched.registry)["probes_total"] == 4
        assert [line["event"] for line in lines] == ["features are down", "features are back"]
        assert lines[0]["why"] == "StoreDown: refused"
        assert watched.pauses.begun.empty()
        await watched.breaker.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("calm_s", "begins_anew"), [(CALM_S - 1, False), (CALM_S + 1, True)])
def test_a_store_that_fails_again_soon_is_looked_at_less_and_less(calm_s, begins_anew):
    """One that answers every look, and then nothing else, is not back and gone ten times a second."""

    async def scenario() -> None:
        watched = Watched()
        for _ in range(5):
            watched.breaker.trip(StoreDown("again"))
            (await watched.pauses.begun.get()).set_result(None)
            while watched.breaker.open:
                await asyncio.sleep(0)
            watched.now += calm_s
        assert (watched.pauses.seconds[4] <= FIRST_S) is begins_anew
        await watched.breaker.close()

    asyncio.run(scenario())


def test_a_store_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """A look is over after its time."""
    monkeypatch.setattr(breakers, "CHECK_S", 0.01)

    async def scenario() -> None:
        watched = Watched()
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def check() -> None:
            await never

        breaker = Breaker(check, FeatureMetrics(CollectorRegistry()), watched.pauses)
        await breaker.start()
        assert breaker.open
        await breaker.close()

    asyncio.run(scenario())


def test_pauses_grow_to_a_bound_and_are_not_the_same_for_all():
    bounds = [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    drawn = list(itertools.islice(pauses_s(), 12))
    assert all(bound / 2 <= pause <= bound for bound, pause in zip(bounds, drawn[:3], strict=True))
    assert all(LONGEST_S / 2 <= pause <= LONGEST_S for pause in drawn[6:])
    assert drawn != list(itertools.islice(pauses_s(), 12))
