"""Which of several failures is the root, and what counts as recovered from."""

import json
from typing import Any

import pytest

from tests.launch.why.scenarios.recorded import dump, job, node, pod
from tradewind.launch.why import Explanation, decode_dump, explain

GONE = "RuntimeError: [pair.cc:534] Connection closed by peer [10.1.2.3]:4312"


def at(second: int) -> str:
    return f"2026-08-01T10:01:{second:02d}Z"


def failed(index: int, second: int, message: str = "", code: int = 1, reason: str = "Error") -> Any:
    """A pod that failed at some second."""
    state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": at(second)}
    status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": state}}]}
    return pod(index, status, nodeName="a")


def disrupted(index: int, second: int, reason: str) -> Any:
    """A pod that the cluster took away at some second; its container ended two seconds later."""
    found = failed(index, second + 2, code=143)
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "lastTransitionTime": at(second),
    }
    found["status"]["conditions"] = [target]
    return found


def running(index: int, name: str = "") -> Any:
    found = pod(index, {"phase": "Running"}, nodeName="a")
    found["metadata"] |= {"name": name or found["metadata"]["name"], "uid": f"running-{index}"}
    return found


def explained(*objects: Any, hosts: int = 4, ended: bool = True) -> Explanation:
    told = job(hosts, gpus=1)
    over = {
        "type": "Failed",
        "status": "True",
        "reason": "BackoffLimitExceeded",
        "lastTransitionTime": at(30),
    }
    told["status"] = {"failed": hosts, "conditions": [over] if ended else []}
    return explain(decode_dump(json.dumps(dump(told, node("a"), *objects)).encode(), "d"), "job/train")


def test_the_first_exception_is_the_root() -> None:
    """Of four ranks the one whose exception came first is named, and the others behind it."""
    pods = [failed(3, 5, "KeyError: 'user'"), *(failed(rank, 7, GONE) for rank in range(3))]
    found = explained(*pods)
    assert found.causes[0].code == "user-error"
    assert "train-3-" in found.causes[0].text
    assert [cause.code for cause in found.causes[1:]] == ["backoff-limit", "rendezvous"]


def test_clocks_of_hosts_differ() -> None:
    """A rank that only lost a peer is never the root, even if its host's clock says that it failed first."""
    found = explained(failed(3, 9, "KeyError: 'user'"), *(failed(rank, 7, GONE) for rank in range(3)))
    assert (found.causes[0].code, "train-3-" in found.causes[0].text) == ("user-error", True)


def test_a_silent_death_explains_lost_peers() -> None:
    """A rank that ended without a word comes before those that say that it is gone."""
    found = explained(failed(1, 7, "", code=9), *(failed(rank, 7, GONE) for rank in (0, 2, 3)))
    assert "train-1-" in next(cause.text for cause in found.causes if cause.code == "user-error")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("PreemptionByScheduler", "preempted"),
        ("EvictionByEvictionAPI", "evicted"),
        ("TerminationByKubelet", "evicted"),
        ("DeletionByPodGC", "node-lost"),
    ],
)
def test_a_disruption_comes_before_what_it_broke(reason: str, code: str) -> None:
    """A pod that was taken away explains the exceptions of its peers a moment later."""
    found = explained(
        disrupted(2, 5, reason), *(failed(rank, 5, "ValueError: short read") for rank in (0, 1, 3))
    )
    assert found.causes[0].code == code


def test_what_was_recovered_from_lies_behind() -> None:
    """A failed pod whose index runs again is listed behind `running`."""
    again = [running(rank, f"train-{rank}-zzzz{rank}") for rank in range(4)]
    found = explained(failed(1, 5, "KeyError: 'user'"), *again, ended=False)
    assert [cause.code for cause in found.causes] == ["running", "user-error"]


def test_a_kill_that_nobody_owns_up_to() -> None:
    """Exit code 137 without a reason is `killed`, with the remedies for it."""
    found = explained(failed(0, 5, code=137), hosts=1)
    assert found.causes[0].code == "killed"
    assert "child process" in found.causes[0].remedy


def test_bare_exit_codes_again_and_again_are_the_limit() -> None:
    """Where no failure says more than an exit code, the limit is named first; with one failure, the failure."""
    assert explained(*(failed(rank, 5) for rank in range(4))).causes[0].code == "backoff-limit"
    assert explained(failed(0, 5), hosts=1).causes[0].code == "user-error"


def test_a_pod_on_a_silent_node_does_not_run() -> None:
    """What a pod last said about itself is not believed when its node is not ready."""
    silent = node("b")
    ready = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": at(3)}
    silent["status"]["conditions"] = [ready]
    lost = running(1)
    lost["spec"]["nodeName"] = "b"
    found = explained(running(0), lost, silent, hosts=2, ended=False)
    assert found.causes[0].code == "node-lost"
    assert found.causes[0].evidence[0].object == "node/b"
    assert found.causes[0].evidence[0].time == at(3)


def test_what_healed_is_not_the_root_of_what_came_later() -> None:
    """An old failure whose index runs again does not hide that another pod was preempted since."""
    found = explained(
        failed(1, 5, "KeyError: 'user'"),
        running(1, "train-1-zzzzz"),
        disrupted(0, 9, "PreemptionByScheduler"),
        pod(2, {"phase": "Pending"}),
        hosts=3,
        ended=False,
    )
    assert found.causes[0].code == "preempted"


def test_who_took_the_place_is_named() -> None:
    """The uid in the scheduler's message leads to the pod that preempted, or to the gang's."""
    urgent = {"apiVersion": "v1", "kind": "Pod", "spec": {"priority": 1000}, "status": {"phase": "Running"}}
    owner = {"kind": "Job", "name": "urgent", "uid": "u"}
    urgent["metadata"] = {
        "name": "urgent-0-abcde",
        "namespace": "prod",
        "uid": "12-34",
        "ownerReferences": [owner],
    }
    gone = {"kind": "Pod", "namespace": "team", "name": "train-0-fghij"}
    said = {"reason": "Preempted", "message": "Preempted by pod 12-34 on node a", "lastTimestamp": at(5)}
    event = {"kind": "Event", "metadata": {"namespace": "team"}, "involvedObject": gone} | said
    found = explained(urgent, event, pod(0, {"phase": "Pending"}), hosts=1, ended=False)
    assert found.causes[0].code == "preempted"
    assert "by prod/job/urgent of priority 1000" in found.causes[0].text
