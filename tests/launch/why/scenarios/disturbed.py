"""Jobs that were disturbed, failed, or run: by the real control plane; kwok says how containers end."""

from typing import Any

from tests.launch.why.scenarios.nodes import cordon, taint
from tests.launch.why.scenarios.room import fill, gang
from tests.launch.why.scenarios.scene import Scene, Step, also, asks, exits, merged


def priority(scene: Scene, value: int) -> dict[str, Any]:
    """A priority class of this scene's own; gives the change of the template that names it."""
    name = f"p{value}-{scene.namespace}"
    scene.make("scheduling.k8s.io/v1", "PriorityClass", name, value=value)
    return also(priorityClassName=name)


def preempted_by_a_higher_priority(scene: Scene) -> None:
    scene.node()
    scene.job()
    scene.running(1)
    scene.job("urgent", pod=priority(scene, 1000))
    scene.running(1, "urgent")
    scene.waiting()


def one_of_two_hosts_preempted(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2)
    scene.running(2)
    scene.job("urgent", pod=priority(scene, 1000))
    scene.running(1, "urgent")
    scene.waiting()


def preempted_on_behalf_of_fewer_gpus(scene: Scene) -> None:
    scene.node()
    scene.job(pod=asks(gpu=6))
    scene.running(1)
    scene.job("urgent", pod=merged(asks(gpu=4), priority(scene, 1000)))
    scene.running(1, "urgent")
    scene.waiting()


def gang_preempted_whole(scene: Scene) -> None:
    scene.pool(2)
    member = gang(scene, 2, disruptionMode={"all": {}})
    scene.job(hosts=2, pod=member, podReplacementPolicy="Failed", podFailurePolicy=IGNORE_DISRUPTION)
    scene.running(2)
    scene.job("urgent", hosts=1, pod=priority(scene, 1000))
    scene.running(1, "urgent")
    scene.pods(lambda pods: sum("nodeName" not in p["spec"] for p in pods) == 2)


IGNORE_DISRUPTION = {
    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
}
KEPT = {"metadata": {"finalizers": ["tradewind.test/kept"]}}
"""A finalizer holds the moment between a pod's eviction and its removal, for the dump to see it."""


def drained(scene: Scene) -> None:
    name = scene.node()
    scene.job(pod=KEPT)
    pod = scene.running(1)[0]["metadata"]["name"]
    cordon(scene, name)
    evict = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    scene.api.call("POST", f"/api/v1/namespaces/{scene.namespace}/pods/{pod}/eviction", evict)
    scene.pods(lambda pods: any(p["status"].get("phase") == "Failed" for p in pods) and len(pods) == 2)
    scene.waiting()


def evicted_by_a_new_taint(scene: Scene) -> None:
    name = scene.node()
    scene.job()
    scene.running(1)
    scene.api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": [taint("maintenance", effect="NoExecute")]}})
    scene.event("TaintManagerEviction")
    scene.waiting()


def node_gone_silent(scene: Scene) -> None:
    scene.node()
    scene.node()
    at_once = [
        {
            "key": f"node.kubernetes.io/{what}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 0,
        }
        for what in ("unreachable", "not-ready")
    ]
    scene.job(hosts=2, pod=merged(KEPT, also(tolerations=at_once)))
    name = scene.running(2)[0]["spec"]["nodeName"]
    lose(scene, name)
    scene.waiting()


def lose(scene: Scene, name: str) -> None:
    """What the node controller writes when nobody renews the lease of a node."""
    scene.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"annotations": {"kwok.x-k8s.io/node": None}}})
    reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
    ready = {"type": "Ready", "status": "Unknown", "reason": reason, "message": message}
    scene.api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}})


def node_silent_with_its_pod_still_there(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2)
    name = scene.running(2)[0]["spec"]["nodeName"]
    lose(scene, name)
    scene.api.wait(
        "/api/v1/nodes", lambda n: n[0]["spec"].get("taints"), fieldSelector=f"metadata.name={name}"
    )


def node_removed(scene: Scene) -> None:
    scene.pool(2)  # without any other, a dump does not say whether nodes were looked at
    scene.job(pod=KEPT)
    name = scene.running(1)[0]["spec"]["nodeName"]
    scene.api.delete(f"/api/v1/nodes/{name}")
    scene.nodes.remove(name)


def too_slow(scene: Scene) -> None:
    scene.pool(1)
    scene.job(activeDeadlineSeconds=1)
    scene.condition("Failed")


def deadline_passed_while_waiting(scene: Scene) -> None:
    scene.node()
    fill(scene, 1, gpu=8)
    scene.job(activeDeadlineSeconds=1)
    scene.condition("Failed")


def fails_again_and_again(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=exits(1), backoffLimit=1)
    scene.condition("Failed")


def both_hosts_fail(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2, pod=exits(3), backoffLimit=1)
    scene.condition("Failed")


def exit_that_says_do_not_retry(scene: Scene) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [65]}}
    scene.pool(1)
    scene.job(pod=exits(65), podFailurePolicy={"rules": [rule]})
    scene.condition("Failed")


def wrong_usage(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=exits(2), backoffLimit=0)
    scene.condition("Failed")


def no_such_command(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=exits(127), backoffLimit=0)
    scene.condition("Failed")


def at_work(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2)
    scene.running(2)


def at_work_again_after_preemption(scene: Scene) -> None:
    scene.node()
    scene.job()
    scene.running(1)
    scene.job("urgent", pod=priority(scene, 1000))
    scene.running(1, "urgent")
    scene.waiting()
    scene.node()
    scene.running(1)


def at_work_beside_a_full_cluster(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2)
    scene.running(2)
    scene.job("other")
    scene.waiting(1, "other")


def done(scene: Scene) -> None:
    scene.pool(2)
    scene.job(hosts=2, pod=exits(0))
    scene.condition("Complete")


def names_without_a_service(scene: Scene) -> None:
    scene.pool(2)
    scene.make("v1", "Service", "serving", spec={"clusterIP": "None", "selector": {"app": "serving"}})
    scene.job(hosts=2, pod=also(subdomain="train"))
    scene.running(2)


def peers_kept_out(scene: Scene) -> None:
    scene.pool(2)
    spec = {"podSelector": {}, "policyTypes": ["Ingress"]}
    scene.make("networking.k8s.io/v1", "NetworkPolicy", "nobody-in", spec=spec)
    scene.job(hosts=2)
    scene.running(2)


SCENARIOS: dict[Step, str] = {
    preempted_by_a_higher_priority: "preempted",
    one_of_two_hosts_preempted: "preempted",
    preempted_on_behalf_of_fewer_gpus: "preempted",
    gang_preempted_whole: "preempted",
    drained: "evicted",
    evicted_by_a_new_taint: "evicted",
    node_gone_silent: "node-lost",
    node_silent_with_its_pod_still_there: "node-lost",
    node_removed: "node-lost",
    too_slow: "deadline",
    deadline_passed_while_waiting: "deadline",
    fails_again_and_again: "backoff-limit",
    both_hosts_fail: "backoff-limit",
    exit_that_says_do_not_retry: "user-error",
    wrong_usage: "user-error",
    no_such_command: "user-error",
    at_work: "running",
    at_work_again_after_preemption: "running",
    at_work_beside_a_full_cluster: "running",
    done: "completed",
    names_without_a_service: "rendezvous",
    peers_kept_out: "rendezvous",
}
