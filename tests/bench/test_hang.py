"""What the hang benchmark makes of events, and of a detector without judgement."""

import pytest

from bench import hang
from bench.peers.training.driver import Recovery
from bench.peers.training.stamps import Stamp
from tradewind.diagnose import hang as detection
from tradewind.store import Event

STOP = Recovery(rank=0, killed_s=3.0, seconds=2.0, survivor_seconds=2.0, starts=1, in_step=True)
COMMITS = [Stamp(0, "commit", step, 1.0 + step / 10, 7) for step in range(10)]


def event(t_s: float, ranks: list[int]) -> Event:
    return Event(run="r", attempt=0, rank=ranks[0], t_s=t_s, kind="hang", data={"ranks": ranks})


def test_an_impatient_detector_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps told to the detector hold slow ones that a detector without judgement takes for hangs."""
    assert hang.alarms_of(0.5, 2000) == 0
    patient = detection.HangDetector
    phases_s = detection.PHASES_S | {"startup": 0.0}
    hasty = detection.Limits(silent_s=0.1, slow_medians=2.0, slow_longest=0.0, phases_s=phases_s)
    monkeypatch.setattr(detection, "HangDetector", lambda ranks, now_s: patient(ranks, now_s, hasty))
    assert hang.alarms_of(0.5, 2000) > 0


def test_a_stop_that_nobody_noticed_is_an_error() -> None:
    """Without an event after the stop there is no figure."""
    with pytest.raises(RuntimeError, match="no `hang` event"):
        hang.verdict_of(STOP, [event(2.0, ranks=[0])], COMMITS)


@pytest.mark.parametrize(("ranks", "right"), [([0], True), ([1], False), ([0, 1], False)])
def test_the_guilty_is_named_alone(ranks: list[int], right: bool) -> None:
    """Naming the innocent, also beside the guilty, is wrong; the first event after the stop is the verdict."""
    seconds, bound_s, named = hang.verdict_of(
        STOP, [event(2.0, [0]), event(3.9, ranks), event(9.0, [0])], COMMITS
    )
    assert (seconds, bound_s, named) == (pytest.approx(0.9), 1.0, right)
