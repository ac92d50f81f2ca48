"""Real training under seeded faults; `make chaos` runs two hundred of these schedules."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import drive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEEDS = {123: "a kill", 28: "a resize", 0: "a stop, then SIGTERM", 9: "a stop, then a kill, of three"}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """What an undisturbed run of so many workers ends with."""
    known: dict[int, str] = {}

    def digest(world: int) -> str:
        if world not in known:
            known[world] = drive.undisturbed(world, tmp_path_factory.mktemp(f"calm{world}"))
        return known[world]

    return digest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each schedule has a home of its own."""
    monkeypatch.setenv("TRADEWIND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRADEWIND_STORE", raising=False)


@pytest.mark.parametrize("seed", SEEDS, ids=SEEDS.values())
def test_faults_do_no_harm(seed: int, tmp_path: Path, calm: Callable[[int], str]) -> None:
    """The run ends well with every sample delivered once, and to the same bits if its size was kept."""
    outcome = drive.disturb(seed, tmp_path)
    assert outcome.state == "succeeded", outcome
    assert sum(outcome.injected.values()) >= 1
    assert (outcome.lost, outcome.repeated) == (0, 0)
    assert outcome.resized or outcome.weights == calm(outcome.worlds[0])
