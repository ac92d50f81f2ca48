"""Whether a run fits: the same cluster with one thing changed has another answer."""

import json
from typing import Any

import pytest

from tests.launch.kubernetes.builders import context, request
from tests.launch.why.scenarios.recorded import GPU, dump, node
from tradewind.launch.kubernetes.ask import Ask, ask_of
from tradewind.launch.kubernetes.context import Volume
from tradewind.launch.kubernetes.outlook import Outlook, outlook
from tradewind.launch.kubernetes.seats import Spot
from tradewind.launch.kubernetes.situation import Verdict
from tradewind.launch.why import World, decode_dump
from tradewind.spec import Placement, Resources, RunSpec, Toleration

SEEN = frozenset(
    {
        "Node", "Pod", "ResourceQuota", "LimitRange", "ServiceAccount", "PersistentVolumeClaim", "PriorityClass",
        "LocalQueue", "ClusterQueue", "ResourceFlavor", "ResourceClaimTemplate",
    }
)  # fmt: skip


def world(*objects: Any, seen: frozenset[str] = SEEN) -> World:
    """A cluster with nothing but these."""
    found = decode_dump(json.dumps(dump(*objects)).encode(), "cluster")
    found.complete = seen
    return found


def asking(hosts: int = 1, gpus: int = 8, workers: int = 0, **how: Any) -> Ask:
    """Hosts with a worker for each GPU."""
    each = workers or max(1, gpus)
    asked = {name: how.pop(name) for name in ("cpus", "memory_gib", "gpu_type", "mig") if name in how}
    resources = Resources(gpus=gpus // each, **asked)
    on = how.pop("on", None)
    spec = RunSpec(
        script="train.py", hosts=hosts, workers=hosts * each, resources=resources, placement=Placement(**how)
    )
    return ask_of(request(spec, on=on, capabilities=None), "team")


def holding(name: str, gpus: int, owner: str = "other", kind: str = "Job") -> Any:
    """Somebody else's pod on a node."""
    container = {"name": "main", "resources": {"requests": {GPU: gpus}}}
    metadata = {"name": f"{owner}-{name}", "namespace": "else", "uid": f"o-{name}"}
    metadata |= {"ownerReferences": [{"kind": kind, "name": owner, "uid": owner}]}
    body = {"nodeName": name, "containers": [container]}
    return {"kind": "Pod", "metadata": metadata, "spec": body, "status": {"phase": "Running"}}


def labelled(name: str, gpus: int = 8, taint: str = "", cordoned: bool = False, **labels: str) -> Any:
    spec = {"taints": [{"key": taint, "effect": "NoSchedule"}] if taint else [], "unschedulable": cordoned}
    found = node(name, gpus) | {"spec": spec}
    found["metadata"] |= {"labels": labels}
    return found


def sliced(name: str, profile: str) -> Any:
    """A node whose GPUs are cut into slices."""
    found = node(name, 0)
    found["status"]["allocatable"] |= {f"nvidia.com/mig-{profile}": "4"}
    return found


def quota(hard: int, used: int = 0, name: str = f"requests.{GPU}", **spec: Any) -> Any:
    status = {"hard": {name: str(hard)}, "used": {name: str(used)}}
    return {
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "team"},
        "spec": spec,
        "status": status,
    }


def said(ask: Ask, *objects: Any, **how: Any) -> Outlook:
    return outlook(ask, world(*objects, **how))


A, B = node("a"), node("b")
NOW, LATER, NEVER = Verdict.NOW, Verdict.LATER, Verdict.NEVER
CASES: list[tuple[Ask, list[Any], Verdict, str]] = [
    (asking(1), [A], NOW, "room for 1 host at once on 1 node"),
    (asking(2), [A, B], NOW, "on 2 nodes"),
    (asking(2, 4), [A], NOW, "on 1 node"),
    (asking(3), [A, B], NEVER, "2 nodes may take them, with room for 2 of 3 hosts at once, even empty"),
    (asking(1, 16), [A, B], NEVER, "no node of 2 has more than 8 nvidia.com/gpu"),
    (asking(1), [], NEVER, "no nodes"),
    (asking(2), [A, B, holding("b", 1)], LATER, "room for 1 of 2 hosts now"),
    (asking(2), [A, B, holding("b", 1, kind="DaemonSet")], NEVER, "room for 1 of 2 hosts at once, even empty"),
    (asking(1, gpu_type="H100"), [A], NEVER, "no node is one that the run may go to (nvidia.com/gpu.product=H100)"),
    (asking(1), [labelled("a", taint="team")], NEVER, "closed to it (taint)"),
    (asking(1), [labelled("a", cordoned=True)], NEVER, "closed to it (cordoned)"),
    (asking(1, tolerations=(Toleration(key="team"),)), [labelled("a", taint="team")], NOW, ""),
    (asking(2), [A, B, quota(16)], NOW, ""),
    (asking(2), [A, B, quota(16, used=1)], LATER, "quota q allows 16 requests.nvidia.com/gpu, 15 left, asked for 16"),
    (asking(2), [A, B, quota(15)], NEVER, "quota q allows 15"),
    (asking(2), [A, B, quota(0, scopes=["BestEffort"])], NOW, ""),
    (asking(1), [A, quota(99, name="limits.cpu")], NEVER, "limits.cpu (quota q), which the pods do not state"),
    (asking(1, priority_class="high"), [A], NEVER, "there is no PriorityClass high"),
    (asking(1, claims=("gpu",)), [A], NEVER, "there is no ResourceClaimTemplate gpu in namespace team"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "objects", "verdict", "because"), CASES)
def test_verdicts(ask: Ask, objects: list[Any], verdict: Verdict, because: str) -> None:
    """Now, later or never, and the sentence that says why."""
    found = said(ask, *objects)
    assert (found.verdict, because in found.because) == (verdict, True), found.because


def test_a_claim_that_nobody_made_is_named() -> None:
    """A context's volume whose PersistentVolumeClaim is not there."""
    on = context(volumes=(Volume(claim="runs", path="/shared"),))
    assert "there is no PersistentVolumeClaim runs" in said(asking(1, on=on), A).because


RACKS = [labelled(f"n{i}", rack=f"r{i // 2}") for i in range(4)]


@pytest.mark.parametrize(
    ("hosts", "held", "verdict"), [(2, (), NOW), (3, (), NEVER), (2, ("n0", "n3"), LATER), (2, ("n0",), NOW)]
)
def test_a_topology_is_one_domain(hosts: int, held: tuple[str, ...], verdict: Verdict) -> None:
    """All hosts have to lie in one rack: four free nodes in two racks are room for two."""
    found = said(asking(hosts, topology="rack"), *RACKS, *(holding(name, 1) for name in held))
    assert found.verdict is verdict


def test_who_must_end_is_few_and_enough() -> None:
    """Of the pods that hold room, those on the nodes that are freed most easily; who holds nothing needed is left out."""
    pods = [
        holding("a", 4, "big"),
        holding("a", 1, "small"),
        holding("b", 2, "lone"),
        holding("c", 8, "full"),
    ]
    found = said(asking(2), node("a"), node("b"), node("c"), *pods)
    assert found.verdict is LATER
    assert [(each.owner, each.nodes, each.holds) for each in found.must_end] == [
        ("else/job/lone", ("b",), {GPU: "2"}),
        ("else/job/full", ("c",), {GPU: "8"}),
    ]


def test_who_is_not_in_the_way_may_stay() -> None:
    """Of two owners on one node only the one whose end is enough, where either would be named with the other."""
    found = said(asking(1, 4), A, holding("a", 4, "big"), holding("a", 1, "small"))
    assert [each.owner for each in found.must_end] == ["else/job/small"]


def test_where_it_would_go_and_what_is_free() -> None:
    """The freest nodes first, and what is free of each resource on those that take such hosts."""
    found = said(asking(3, 4), A, B, node("small", 2), holding("a", 3))
    assert found.nodes == (Spot(node="b", hosts=2), Spot(node="a", hosts=1))
    assert (found.each, found.all, found.free) == ({GPU: "4"}, {GPU: "12"}, {GPU: "13"})
    assert (found.room_now, found.room_ever) == (3, 4)


def test_a_pod_that_keeps_others_away_does() -> None:
    """Required anti-affinity of a pod that is there closes its node for now, not for ever."""
    guard = holding("a", 0)
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "namespaces": ["team"]}
    guard["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    }
    nodes = [labelled("a", **{"kubernetes.io/hostname": "a"})]
    assert said(asking(1), *nodes, guard).verdict is LATER
    assert said(asking(1), *nodes).verdict is NOW


def test_what_may_not_be_seen_is_not_guessed() -> None:
    """Without nodes or pods nothing fits for sure; a quota still proves that something never does."""
    assert said(asking(1), seen=SEEN - {"Node"}).verdict is Verdict.UNKNOWN
    assert said(asking(1), A, seen=SEEN - {"Pod"}).verdict is Verdict.UNKNOWN
    assert said(asking(1, 16), A, seen=SEEN - {"Pod"}).verdict is NEVER
    assert said(asking(1), quota(1), seen=SEEN - {"Node"}).verdict is NEVER


def kueue(nominal: int, reserved: int = 0, cohort: str = "", stop: str = "None", **flavor: Any) -> list[Any]:
    """A queue with one flavor of GPUs."""
    resource = {"name": GPU, "nominalQuota": str(nominal)} | flavor
    spec = {"cohortName": cohort, "stopPolicy": stop}
    spec |= {"resourceGroups": [{"flavors": [{"name": "h100", "resources": [resource]}]}]}  # type: ignore[dict-item]
    use = [{"name": "h100", "resources": [{"name": GPU, "total": str(reserved)}]}]
    local = {"metadata": {"name": "research", "namespace": "team"}, "spec": {"clusterQueue": "gpus"}}
    return [
        {"kind": "LocalQueue"} | local,
        {
            "kind": "ClusterQueue",
            "metadata": {"name": "gpus"},
            "spec": spec,
            "status": {"flavorsReservation": use},
        },
        {"kind": "ResourceFlavor", "metadata": {"name": "h100"}, "spec": {"nodeLabels": {"pool": "h"}}},
    ]


H = labelled("h", pool="h")


@pytest.mark.parametrize(
    ("queue", "nodes", "verdict", "because"),
    [
        (kueue(8), [H], NOW, ""),
        (kueue(8), [A], NEVER, "pool=h"),
        (kueue(7), [H], NEVER, "queue gpus, flavor h100 allows 7"),
        (kueue(8, reserved=1), [H], LATER, "7 left, asked for 8"),
        (kueue(7, cohort="all"), [H], NOW, ""),
        (kueue(4, cohort="all", borrowingLimit="3"), [H], NEVER, "allows 7"),
        (kueue(8, stop="Hold"), [H], LATER, "ClusterQueue gpus is stopped"),
        ([], [H], NEVER, "there is no LocalQueue research in namespace team; there is none"),
    ],
)
def test_kueue(queue: list[Any], nodes: list[Any], verdict: Verdict, because: str) -> None:
    """A queue's quota, what it may borrow, and the nodes that its flavors stand for."""
    found = said(asking(1, queue="research"), *queue, *nodes)
    assert (found.verdict, because in found.because) == (verdict, True), found.because


@pytest.mark.parametrize(
    ("ask", "objects", "change"),
    [
        (asking(1, 16), [A, B], "use 2 hosts with 8 workers on each (8 nvidia.com/gpu): --hosts 2 --gpus 8"),
        (asking(3), [A, B], "use 2 hosts: --hosts 2"),
        (
            asking(1),
            [labelled("a", taint="team")],
            "tolerate the taint team (placement.tolerations), as on a",
        ),
        (asking(1), [labelled("a", cordoned=True)], "uncordon a"),
        (
            asking(1, gpu_type="H100"),
            [labelled("a", **{"nvidia.com/gpu.product": "A100"})],
            "choose other nodes than nvidia.com/gpu.product=H100, such as nvidia.com/gpu.product=A100",
        ),
        (
            asking(1, 2, mig="1g.10gb"),
            [sliced("a", "2g.20gb")],
            "ask for nvidia.com/mig-2g.20gb instead of nvidia.com/mig-1g.10gb",
        ),
        (asking(4, topology="rack"), RACKS, "do without one rack for all hosts"),
        (asking(2), [A, B, quota(8)], "use 1 host: --hosts 1"),
        (asking(1), [A, quota(4)], "have the quota raised (quota q: requests.nvidia.com/gpu from 4 to 8)"),
        (
            asking(1, 16),
            [A, labelled("b", taint="team")],
            "use 2 hosts with 8 workers on each (8 nvidia.com/gpu): --hosts 2 --gpus 8, and tolerate the taint team "
            "(placement.tolerations), as on b",
        ),
    ],
)
def test_the_smallest_change(ask: Ask, objects: list[Any], change: str) -> None:
    """What would make it fit is tried, and named first; two things together where one is not enough."""
    found = said(ask, *objects)
    assert found.verdict is NEVER
    assert found.changes[0] == change
