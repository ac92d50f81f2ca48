"""Random clusters and requests on a real control plane: what `plan` says of each, and what the scheduler does.

Every case has nodes of its own (a label names the case, and its run selects it), so that many run side by
side. What can never fit is found out on the emptied cluster: everything that held room is deleted, the run is
submitted, and the scheduler places all of its hosts or says that it cannot.
"""

import concurrent.futures
import contextlib
import json
import random
import sys
from typing import Any, NamedTuple

import msgspec

from tests.launch.kubernetes.builders import code, context
from tests.services.kube_api import ApiError, Object
from tests.services.kubernetes import ControlPlane
from tradewind.launch.kubernetes.ask import ask_of
from tradewind.launch.kubernetes.cluster import Cluster
from tradewind.launch.kubernetes.context import Context
from tradewind.launch.kubernetes.forecast import observed
from tradewind.launch.kubernetes.manifests import manifests
from tradewind.launch.kubernetes.outlook import Outlook, outlook
from tradewind.launch.kubernetes.request import Request, make_request
from tradewind.launch.kubernetes.situation import Verdict
from tradewind.spec import Placement, Resources, RunSpec, Toleration, to_dict

CASE, TYPE, RACK = "tradewind.test/case", "nvidia.com/gpu.product", "rack"
GPU = "nvidia.com/gpu"
SHAPES = ((0, 16, 64), (2, 8, 32), (4, 32, 128), (8, 64, 512), (8, 96, 256))
"""GPUs, CPUs and GiB of a node."""
TAINT = {"key": "team", "value": "ml", "effect": "NoSchedule"}
AT_ONCE = 12
PATIENCE_S = 120.0


class Drawn(NamedTuple):
    """One random cluster with one random request."""

    seed: int
    nodes: tuple[dict[str, Any], ...]
    """Arguments of `ControlPlane.add_node`, and whether the node is cordoned."""
    held: tuple[Object, ...]
    """Pods that hold room."""
    daemon_cpus: int
    """CPUs of a DaemonSet's pod on every node; 0 for none."""
    quota: dict[str, str]
    spec: RunSpec


class Decided(NamedTuple):
    """What was said of a case, and what happened."""

    drawn: Drawn
    said: Outlook
    fits_now: bool
    """The scheduler placed all hosts beside what holds room."""
    ever_fits: bool
    """It placed all of them once that was gone."""

    @property
    def wrong(self) -> str:
        """`never`: what fits was called impossible; `missed`: the opposite; `now`: its moment was wrong."""
        if (self.said.verdict is Verdict.NEVER) != (not self.ever_fits):
            return "missed" if not self.ever_fits else "never"
        return "" if (self.said.verdict is Verdict.NOW) == self.fits_now else "now"


def draw(seed: int) -> Drawn:
    """The case of a seed; the same one every time."""
    rng, case = random.Random(seed), f"case-{seed}"
    nodes: list[dict[str, Any]] = []
    held: list[Object] = []
    for index in range(rng.randint(1, 6)):
        gpus, cpus, gib = rng.choice(SHAPES)
        labels = {CASE: case, TYPE: rng.choice("AB"), RACK: f"r{rng.randrange(2)}"}
        taints = [TAINT] if rng.random() < 0.2 else []
        name = f"{case}-{index}"
        about = {"name": name, "gpus": gpus, "cpus": str(cpus), "memory": f"{gib}Gi", "labels": labels}
        nodes.append(about | {"taints": taints, "cordoned": rng.random() < 0.08})
        if rng.random() < 0.75:
            most = rng.choice((cpus // 4, cpus // 2, cpus - 3))
            held.append(
                holder(f"{name}-held", name, rng.randint(gpus // 2, gpus), most, gib // rng.randint(2, 8))
            )
    tolerations = (Toleration(key="team"),) if rng.random() < 0.4 else ()
    placement = Placement(
        node_selector={CASE: case},
        tolerations=tolerations,
        topology=RACK if rng.random() < 0.25 else None,
    )
    hosts, gpus = rng.choice((1, 1, 2, 2, 3, 4, 6, 8, 12, 16)), rng.choice((0, 0, 1, 1, 2, 2, 4, 8))
    workers = max(1, gpus)
    resources = Resources(
        gpus=1 if gpus else 0,
        gpu_type=rng.choice("AB") if gpus and rng.random() < 0.25 else None,
        cpus=rng.choice((None, 0.5, 1, 2, 6, 12)),
        memory_gib=rng.choice((None, 1, 4, 16, 32)),
    )
    quota = {f"requests.{GPU}": str(rng.randint(1, 24))} if gpus and rng.random() < 0.25 else {}
    if rng.random() < 0.1:
        quota["requests.cpu"] = str(rng.randint(4, 64))
    spec = RunSpec(
        script="train.py", hosts=hosts, workers=hosts * workers, resources=resources, placement=placement
    )
    return Drawn(seed, tuple(nodes), tuple(held), rng.choice((0, 0, 0, 2)), quota, spec)


def holder(name: str, node: str, gpus: int, cpus: int, gib: int) -> Object:
    """A pod that holds room on a node."""
    asked = {"cpu": str(cpus), "memory": f"{gib}Gi"} | ({GPU: str(gpus)} if gpus else {})
    container = {"name": "main", "image": "i", "resources": {"requests": asked}}
    container["resources"] |= {"limits": {GPU: str(gpus)}} if gpus else {}
    spec = {"nodeName": node, "containers": [container], "tolerations": [{"operator": "Exists"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def decide_all(plane: ControlPlane, seeds: range) -> list[Decided]:
    """Every case, many at a time."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        decided = []
        for each in pool.map(lambda seed: decide(plane, draw(seed)), seeds):
            decided.append(each)
            print(
                f"case {each.drawn.seed}: {each.said.verdict}{each.wrong and ', wrong: ' + each.wrong}",
                file=sys.stderr,
            )
    return decided


def decide(plane: ControlPlane, drawn: Drawn) -> Decided:
    """Build one case, ask `plan`, and let the scheduler show what is true; then remove it."""
    place, others = plane.new_namespace(), plane.new_namespace()
    try:
        build(plane, drawn, place, others)
        where = context(kubeconfig=str(plane.kubeconfig), namespace=place)
        with Cluster(where) as cluster:
            seen, capabilities = observed(cluster)
            first = request_of(drawn, where, capabilities, "a" * 12)
            said = outlook(ask_of(first, place), seen.world)
        now = placed(plane, first, place, patient=said.verdict is Verdict.NOW)
        if now:
            return Decided(drawn, said, True, True)
        plane.api.delete(f"/apis/batch/v1/namespaces/{place}/jobs/{first.object_name}")
        empty(plane, drawn, place, others)
        second = request_of(drawn, where, capabilities, "b" * 12)
        ever = placed(plane, second, place, patient=said.verdict is not Verdict.NEVER)
        return Decided(drawn, said, False, ever)
    finally:
        for name in (place, others):
            plane.api.delete(f"/api/v1/namespaces/{name}")
        for node in drawn.nodes:
            with contextlib.suppress(ApiError):  # The one that could not be made, when building failed.
                plane.api.delete(f"/api/v1/nodes/{node['name']}")


def request_of(drawn: Drawn, where: Context, capabilities: Any, run: str) -> Request:
    spec = drawn.spec
    about = {"run": run, "name": f"c{drawn.seed}", "spec": spec, "stored": to_dict(spec)}
    return make_request(**about, code=code(), context=where, capabilities=capabilities)  # type: ignore[arg-type]


def build(plane: ControlPlane, drawn: Drawn, place: str, others: str) -> None:
    """Nodes that are ready, pods that hold room on them, a DaemonSet's pods, and the quota as it is counted."""
    api = plane.api
    if drawn.daemon_cpus:
        api.create(daemon(drawn), others)
    for node in drawn.nodes:
        plane.add_node(**{key: value for key, value in node.items() if key != "cordoned"})
    names = {node["name"] for node in drawn.nodes}
    api.wait(
        "/api/v1/nodes",
        lambda found: sum(n["metadata"]["name"] in names and is_ready(n) for n in found) == len(names),
        PATIENCE_S,
        labelSelector=f"{CASE}=case-{drawn.seed}",
    )
    for pod in drawn.held:
        api.create(pod, others)
    pods = f"/api/v1/namespaces/{others}/pods"
    daemons = len(names) if drawn.daemon_cpus else 0
    expected = daemons + len(drawn.held)
    api.wait(pods, lambda found: sum(map(has_node, found)) == expected, PATIENCE_S)
    for node in drawn.nodes:
        if node["cordoned"]:
            api.patch(f"/api/v1/nodes/{node['name']}", {"spec": {"unschedulable": True}})
    if drawn.quota:
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
        api.create(quota | {"spec": {"hard": drawn.quota}}, place)
        api.wait(
            f"/api/v1/namespaces/{place}/resourcequotas", lambda found: found[0].get("status", {}).get("hard")
        )


def is_ready(node: Object) -> bool:
    """Whether pods may go there: its kubelet said so, and the control plane has taken notice."""
    taints = [t["key"] for t in node["spec"].get("taints", ())]
    conditions = node.get("status", {}).get("conditions", ())
    return not any("not-ready" in key for key in taints) and any(
        c["type"] == "Ready" and c["status"] == "True" for c in conditions
    )


def daemon(drawn: Drawn) -> Object:
    """A pod on every node of the case, whatever taints it."""
    labels = {"app": f"daemon-{drawn.seed}"}
    container = {"name": "main", "image": "i", "resources": {"requests": {"cpu": str(drawn.daemon_cpus)}}}
    spec = {
        "containers": [container],
        "nodeSelector": {CASE: f"case-{drawn.seed}"},
        "tolerations": [{"operator": "Exists"}],
    }
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "daemon"}, "spec": body}


def empty(plane: ControlPlane, drawn: Drawn, place: str, others: str) -> None:
    """Delete what holds room, and the run; the DaemonSet's pods stay. Returns when all of it is gone."""
    pods = f"/api/v1/namespaces/{others}/pods"
    for pod in drawn.held:
        plane.api.delete(f"{pods}/{pod['metadata']['name']}", grace_s=0)
    plane.api.delete(f"/api/v1/namespaces/{place}/pods", grace_s=0)
    plane.api.wait(f"/api/v1/namespaces/{place}/pods", lambda found: not found)
    names = {pod["metadata"]["name"] for pod in drawn.held}
    plane.api.wait(pods, lambda found: names.isdisjoint(pod["metadata"]["name"] for pod in found))


def placed(plane: ControlPlane, request: Request, place: str, *, patient: bool) -> bool:
    """Submit a run; whether the scheduler placed all of its hosts.

    Its first word counts, or that of the quota; who is `patient` lets it think again.
    """
    for manifest in manifests(request):
        if manifest["kind"] == "Job":
            manifest["spec"] |= {"suspend": False}
        plane.api.apply(json.loads(msgspec.json.encode(manifest)), place)

    def told(found: list[Object]) -> bool:
        mine = [e for e in found if e["involvedObject"]["name"].startswith(request.object_name)]
        refused = any(e["reason"] in ("FailedScheduling", "FailedCreate") for e in mine)
        return (refused and not patient) or len(
            [e for e in mine if e["reason"] == "Scheduled"]
        ) >= request.spec.hosts

    with contextlib.suppress(TimeoutError):
        plane.api.wait(f"/api/v1/namespaces/{place}/events", told, PATIENCE_S)
    pods = plane.api.items(f"/api/v1/namespaces/{place}/pods")
    return sum(has_node(pod) for pod in pods) >= request.spec.hosts


def has_node(pod: Object) -> bool:
    """Whether the scheduler, or whoever made the pod, has placed it."""
    return bool(pod["spec"].get("nodeName"))
