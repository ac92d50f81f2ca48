"""The chaos benchmark keeps its place and calls harm by its name."""

from pathlib import Path
from typing import Any

import pytest

from bench import chaos
from tests.chaos.drive import Outcome


def outcome(seed: int, **fields: Any) -> Outcome:
    """A schedule of two workers that did no harm, unless said otherwise."""
    usual: dict[str, Any] = {"worlds": [2], "injected": {"kill": 1}, "missed": 0, "state": "succeeded"}
    return Outcome(seed=seed, **{**usual, "weights": "calm", **fields})


@pytest.fixture
def place(tmp_path: Path) -> chaos.Place:
    """A place file that knows how calm runs of two and three workers end."""
    kept = chaos.Place(tmp_path / "results.jsonl", "code1")
    kept.add(world=2, weights="calm")
    kept.add(world=3, weights="calm of three")
    return kept


def test_what_was_done_is_found_again(place: chaos.Place) -> None:
    """Results survive an interruption that tears the last line; those of other code are not used."""
    place.add(outcome=outcome(5, lost=3))
    with place.path.open("ab") as file:
        file.write(b'{"code":"code1","outco')
    again = chaos.Place(place.path, "code1")
    assert again.outcomes == {5: outcome(5, lost=3)}
    assert again.calm == {2: "calm", 3: "calm of three"}
    assert chaos.Place(place.path, "code2").outcomes == {}


def test_only_what_is_missing_is_carried_out(
    tmp_path: Path, place: chaos.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after a few schedules the benchmark does the others, and sums up all of them."""
    monkeypatch.setattr(chaos, "digest_of_code", lambda: "code1")
    place.add(outcome=outcome(0))
    place.add(outcome=outcome(2))
    carried_out: list[int] = []

    def carry_out(seed: int, kept: chaos.Place, folder: Path) -> Outcome:
        carried_out.append(seed)
        return outcome(seed)

    monkeypatch.setattr(chaos, "carry_out", carry_out)
    flags = type("Flags", (), {"schedules": 4, "place": str(place.path)})()
    found = chaos.measure(chaos.Options(quick=False, repeats=1, keep=False, extra=flags))
    assert carried_out == [1, 3]
    assert (found["schedules"].value, found["faults"].value, found["weights_differ"].value) == (4, 4, 0)


@pytest.mark.parametrize(
    ("fields", "figure"),
    [
        ({"weights": "other"}, "weights_differ"),
        ({"weights": "calm", "worlds": [3]}, "weights_differ"),
        ({"state": "failed", "weights": ""}, "runs_unfinished"),
        ({"lost": 2, "resized": True}, "samples_lost"),
        ({"repeated": 1, "resized": True}, "samples_repeated"),
    ],
)
def test_harm_is_counted(place: chaos.Place, fields: dict[str, Any], figure: str) -> None:
    """Other bits, a run that did not end, lost and repeated samples are each counted, and make it fail."""
    bad = outcome(1, **fields)
    assert chaos.is_bad(bad, place)
    found = chaos.figures([outcome(0), bad], place)
    assert (found[figure].value, found[figure].low) == (found[figure].high, 0)
    assert found[figure].value > 0


def test_a_resized_run_is_not_compared_bit_by_bit(place: chaos.Place) -> None:
    """With another number of workers sums are taken in another order, so only samples are compared."""
    assert not chaos.is_bad(outcome(1, weights="other", resized=True), place)
    found = chaos.figures([outcome(1, recomputed=[1, 4]), outcome(2, resized=True)], place)
    assert (found["weights_compared"].value, found["steps_recomputed_max"].value) == (1, 4)


def test_code_has_a_digest(tmp_path: Path) -> None:
    """Another byte in the package or in the suite is other code; a file elsewhere is not."""
    for name in ("src/tradewind/a.py", "tests/chaos/b.py", "docs/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    digests = [chaos.digest_of_code(tmp_path)]
    for name in ("docs/c.py", "src/tradewind/a.py", "tests/chaos/b.py"):
        (tmp_path / name).write_text("2")
        digests.append(chaos.digest_of_code(tmp_path))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
