"""The arithmetic of room: the same cluster with one number changed has another cause."""

import json
from typing import Any

import pytest

from tests.launch.why.scenarios.recorded import GPU, condition, dump, job, node, pod
from tradewind.launch.why import Cause, decode_dump, explain


def asking(gpus: int, index: int = 0, **spec: Any) -> Any:
    """A pod of the job that waits."""
    found = pod(index, {"phase": "Pending"}, **spec)
    found["spec"]["containers"][0]["resources"]["limits"][GPU] = str(gpus)
    return found


def holding(name: str, gpus: int, phase: str = "Running") -> Any:
    """Somebody else's pod on a node."""
    container = {"name": "main", "resources": {"requests": {GPU: gpus}}}
    body = {"nodeName": name, "containers": [container]}
    metadata = {"name": f"other-{name}", "namespace": "else", "uid": f"o-{name}"}
    return {"kind": "Pod", "metadata": metadata, "spec": body, "status": {"phase": phase}}


def first(*objects: Any, hosts: int = 1) -> Cause:
    return explain(decode_dump(json.dumps(dump(job(hosts), *objects)).encode(), "d"), "job/train").causes[0]


@pytest.mark.parametrize(
    ("asks", "held", "code"),
    [
        (4, (6, 6), "fragmentation"),
        (4, (6, 7), "no-capacity"),
        (4, (8, 8), "no-capacity"),
        (9, (0, 0), "never-fits"),
        (9, (8, 8), "never-fits"),
    ],
)
def test_what_is_free_and_where(asks: int, held: tuple[int, int], code: str) -> None:
    """Enough in total but not on one node, too little in total, more than a node has at all."""
    found = first(asking(asks), node("a"), node("b"), holding("a", held[0]), holding("b", held[1]))
    assert found.code == code


def test_the_numbers_are_told() -> None:
    """The text says what is asked for, what is free in all and on one node, and who holds the rest."""
    found = first(asking(4), node("a"), node("b"), holding("a", 6), holding("b", 7))
    assert "each asks for 4 nvidia.com/gpu. 3 free over 2 nodes, at most 2 on one." in found.text
    assert "else/other-b (7)" in found.text


def test_pods_that_ended_hold_nothing() -> None:
    """A finished pod's room is free again."""
    found = first(asking(4), node("a"), holding("a", 8, phase="Succeeded"))
    assert found.code == "unknown"


@pytest.mark.parametrize(
    ("held", "code"), [((0, 8), "gang-incomplete"), ((8, 8), "no-capacity"), ((6, 6), "fragmentation")]
)
def test_a_gang_is_incomplete_only_if_a_part_of_it_fits(held: tuple[int, int], code: str) -> None:
    """Where not even one of its pods fits, what keeps that one off is the cause."""
    group = {"kind": "PodGroup", "metadata": {"name": "gang", "namespace": "team"}}
    group["spec"] = {"schedulingPolicy": {"gang": {"minCount": 3}}}
    member = {"schedulingGroup": {"podGroupName": "gang"}}
    pods = [asking(4, index, **member) for index in range(3)]
    found = first(group, *pods, node("a"), node("b"), holding("a", held[0]), holding("b", held[1]), hosts=3)
    assert found.code == code


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"unschedulable": True}, "cordoned"),
        ({"taints": [{"key": "team", "effect": "NoSchedule"}]}, "taint"),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]}, "node-lost"),
        ({"taints": [{"key": "team", "effect": "PreferNoSchedule"}]}, "unknown"),
    ],
)
def test_a_closed_node_that_would_do(spec: Any, code: str) -> None:
    """What closes the only node that is large enough is the cause; a small open one does not matter."""
    assert first(asking(4), node("a") | {"spec": spec}, node("small", gpus=1)).code == code


@pytest.mark.parametrize(
    ("hard", "used", "code"), [(16, 16, "quota-exceeded"), (4, 0, "never-fits"), (16, 0, "unknown")]
)
def test_a_quota_is_added_up(hard: int, used: int, code: str) -> None:
    """Used up, smaller than one pod, or not the cause."""
    name = f"requests.{GPU}"
    status = {"hard": {name: str(hard)}, "used": {name: str(used)}}
    quota = {"kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "team"}, "status": status}
    assert first(quota, node("a")).code == code


def test_a_claim_that_waits_for_its_pod_is_no_cause() -> None:
    """A pending claim of a WaitForFirstConsumer class is as it should be; what keeps the pod off is the cause."""
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "team"}}
    claim |= {"spec": {"storageClassName": "late"}, "status": {"phase": "Pending"}}
    late = {"kind": "StorageClass", "metadata": {"name": "late"}, "volumeBindingMode": "WaitForFirstConsumer"}
    waiting = asking(4, volumes=[volume])
    assert first(waiting, claim, late, node("a"), holding("a", 8)).code == "no-capacity"
    assert (
        first(waiting, claim, late | {"volumeBindingMode": "Immediate"}, node("a")).code == "volume-unbound"
    )


def test_the_scheduler_is_not_believed_against_the_objects() -> None:
    """A message from before a node was cordoned does not hide that it is cordoned now."""
    said = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    waiting = asking(4)
    waiting["status"]["conditions"] = [condition("PodScheduled", "False", "Unschedulable", said)]
    assert first(waiting, node("a") | {"spec": {"unschedulable": True}}).code == "cordoned"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("SchedulerError", 'error in "DynamicResources" PodGroupPostFilter plugins: not found'),
        ("Unschedulable", "no nodes available to schedule pods"),
    ],
)
def test_a_cluster_without_nodes(reason: str, said: str) -> None:
    """Of a gang the scheduler of Kubernetes 1.37 says only that it failed; both sentences mean that there is no node."""
    waiting = asking(4)
    waiting["status"]["conditions"] = [condition("PodScheduled", "False", reason, said)]
    found = first(waiting)
    assert (found.code, "has no nodes" in found.text) == ("no-capacity", True)


def test_no_nodes_were_dumped_is_not_no_nodes() -> None:
    """A dump without nodes proves nothing; a cluster that was asked for its nodes and has none does."""
    world = decode_dump(json.dumps(dump(job(1), asking(4))).encode(), "d")
    assert explain(world, "job/train").causes[0].code == "unknown"
    world.complete = frozenset({"Node"})
    assert explain(world, "job/train").causes[0].code == "no-capacity"
