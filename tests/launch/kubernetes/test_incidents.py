"""What a cluster did to a run, out of its Events: each once, in the store's words, by name."""

from typing import Any

import pytest

from tradewind.launch.kubernetes.incidents import incidents, with_names

JOB = {"kind": "Job", "name": "train-1"}
POD = {"kind": "Pod", "name": "train-1-0-abcde"}


def said(about: dict[str, str], reason: str, uid: str = "u", **fields: Any) -> dict[str, Any]:
    """An Event."""
    return {
        "metadata": {"uid": uid},
        "involvedObject": about,
        "reason": reason,
        "message": "so it is",
    } | fields


@pytest.mark.parametrize(
    ("event", "what", "t_s", "key"),
    [
        (said(JOB, "Suspended", lastTimestamp="1970-01-01T00:01:00Z", count=2), "suspended", 60.0, "u/2"),
        (said(POD, "Preempted", eventTime="1970-01-01T00:00:01.5Z"), "preempted", 1.5, "u/1"),
        (
            said(
                POD,
                "TaintManagerEviction",
                eventTime="1970-01-01T00:00:01Z",
                series={"count": 3, "lastObservedTime": "1970-01-01T00:00:09Z"},
            ),
            "node_lost",
            9.0,
            "u/3",
        ),
    ],
)
def test_an_incident_is_dated_and_told_from_its_repetition(
    event: dict[str, Any], what: str, t_s: float, key: str
) -> None:
    """Writers date Events in three ways; one that happened again is another incident."""
    (found,) = incidents("r", [event])
    about = event["involvedObject"]
    assert (found.kind, found.t_s) == ("cluster", t_s)
    named = {"host": "host 0"} if about is POD else {}
    assert (
        found.data == {"what": what, "said": f"{about['kind']} {about['name']}: so it is", "key": key} | named
    )


def test_other_events_are_no_incidents() -> None:
    """What happens to every run, and what has no date, is left out."""
    assert not list(incidents("r", [said(JOB, "SuccessfulCreate", lastTimestamp="1970-01-01T00:00:01Z")]))
    assert not list(incidents("r", [said(POD, "Preempted")]))


def test_a_group_is_called_by_its_name() -> None:
    """Schedulers write the uid of the group that preempted."""
    groups = [{"metadata": {"uid": "1234", "name": "first-1"}}]
    assert (
        with_names("Preempted by podgroup 1234 on node a", groups)
        == "Preempted by podgroup first-1 on node a"
    )
