"""What the `why` benchmark counts."""

import json

from bench import why
from tests.launch.why.scenarios import recorded
from tests.launch.why.scenarios.play import Played


def played(*reasons: tuple[str, str]) -> Played:
    """A job about which these events (type, reason) were written, oldest first."""
    about = {"kind": "Job", "namespace": "team", "name": "train"}
    events = [
        {"kind": "Event", "metadata": {"namespace": "team"}, "involvedObject": about, "type": type}
        | {"reason": reason, "lastTimestamp": recorded.T.format(second)}
        for second, (type, reason) in enumerate(reasons)
    ]
    dump = recorded.dump(recorded.job(), *reversed(events))
    return Played("made-up", "recorded", "mount-failed", json.dumps(dump).encode())


def test_the_baseline_takes_the_newest_event() -> None:
    """By time, not by its place in the dump; the stronger one takes the newest warning."""
    found = played(("Warning", "FailedMount"), ("Normal", "Pulling"))
    assert why.last_event(found) == "starting"
    assert why.last_warning(found) == "mount-failed"


def test_the_baseline_without_events() -> None:
    """Without an event it says what most jobs do: run."""
    assert (why.last_event(played()), why.last_warning(played())) == ("running", "running")


def test_a_miss_lowers_the_share() -> None:
    """The figure is the share of right first causes."""
    assert why.share([True, True, False, True]).value == 0.75
    wrong = played(("Warning", "FailedMount"))
    assert why.first_cause(wrong) != wrong.label
