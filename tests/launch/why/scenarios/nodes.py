"""Jobs that wait because no node with room is one for them: tainted, not asked for, cordoned. All by the real control plane."""

from typing import Any

from tests.launch.why.scenarios.room import fill
from tests.launch.why.scenarios.scene import Scene, Step, also, asks, merged


def node_terms(key: str, *values: str) -> dict[str, Any]:
    """Required node affinity."""
    terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return also(affinity={"nodeAffinity": required})


def pod_terms(kind: str, app: str) -> dict[str, Any]:
    """Required pod affinity or anti-affinity, by host."""
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    return also(affinity={kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


def taint(key: str, value: str = "yes", effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": key, "value": value, "effect": effect}


def all_nodes_tainted(scene: Scene) -> None:
    scene.pool(2, taints=[taint("dedicated", "research")])
    scene.job()
    scene.waiting()


def tolerates_another_value(scene: Scene) -> None:
    scene.pool(2, taints=[taint("dedicated", "research")])
    other = {"key": "dedicated", "operator": "Equal", "value": "serving", "effect": "NoSchedule"}
    scene.job(pod=also(tolerations=[other]))
    scene.waiting()


def large_nodes_tainted_small_ones_open(scene: Scene) -> None:
    scene.pool(2, taints=[taint("nvidia.com/gpu", "present")])
    scene.pool(2, gpus=0)
    scene.job()
    scene.waiting()


def selector_of_a_type_nobody_has(scene: Scene) -> None:
    scene.pool(2, labels={"gpu-type": "h100"})
    scene.job(pod=also(nodeSelector={"gpu-type": "h200"}))
    scene.waiting()


def selector_with_a_misspelt_key(scene: Scene) -> None:
    scene.pool(2, labels={"gpu-type": "h100"})
    scene.job(pod=also(nodeSelector={"gpu-typ": "h100"}))
    scene.waiting()


def labels_that_no_node_has_together(scene: Scene) -> None:
    scene.node(labels={"gpu-type": "h100", "zone": "a"})
    scene.node(labels={"gpu-type": "a100", "zone": "b"})
    scene.job(pod=also(nodeSelector={"gpu-type": "h100", "zone": "b"}))
    scene.waiting()


def affinity_to_a_zone_without_nodes(scene: Scene) -> None:
    scene.pool(2, labels={"zone": "a"})
    scene.job(pod=node_terms("zone", "b", "c"))
    scene.waiting()


def away_from_its_own_kind(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=3, pod=merged(asks(gpu=1), pod_terms("podAntiAffinity", "train")))
    scene.running(2)
    scene.waiting()


def next_to_a_pod_that_is_not_there(scene: Scene) -> None:
    scene.pool(2)
    scene.job(pod=pod_terms("podAffinity", "feature-cache"))
    scene.waiting()


def spread_over_zones(scene: Scene) -> None:
    scene.node(labels={"zone": "a"})
    scene.node(gpus=1, labels={"zone": "b"})
    selector = {"matchLabels": {"app": "train"}}
    rule = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": selector,
    }
    scene.job(hosts=4, pod=merged(asks(gpu=1), also(topologySpreadConstraints=[rule])))
    scene.running(3)
    scene.waiting()


def cordon(scene: Scene, name: str) -> None:
    scene.api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    path = "/api/v1/nodes"
    scene.api.wait(path, lambda nodes: nodes[0]["spec"].get("taints"), fieldSelector=f"metadata.name={name}")


def all_nodes_cordoned(scene: Scene) -> None:
    for name in scene.pool(2):
        cordon(scene, name)
    scene.job()
    scene.waiting()


def the_free_node_is_cordoned(scene: Scene) -> None:
    first = scene.node()
    cordon(scene, first)
    scene.node()
    fill(scene, 1, gpu=8)
    scene.job()
    scene.waiting()


def nodes_not_ready(scene: Scene) -> None:
    # From the beginning: a node of which nothing is known has no taint for a moment, and gets the pod.
    ready = {"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "runtime is down"}
    scene.pool(2, kwok=False, conditions=[ready])
    scene.job()
    scene.waiting()


SCENARIOS: dict[Step, str] = {
    all_nodes_tainted: "taint",
    tolerates_another_value: "taint",
    large_nodes_tainted_small_ones_open: "taint",
    selector_of_a_type_nobody_has: "node-selector",
    selector_with_a_misspelt_key: "node-selector",
    labels_that_no_node_has_together: "node-selector",
    affinity_to_a_zone_without_nodes: "affinity",
    away_from_its_own_kind: "affinity",
    next_to_a_pod_that_is_not_there: "affinity",
    spread_over_zones: "affinity",
    all_nodes_cordoned: "cordoned",
    the_free_node_is_cordoned: "cordoned",
    nodes_not_ready: "node-lost",
}
