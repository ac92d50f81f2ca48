"""Dumps written by hand: Kueue, whose controller is not run here, and clusters of which a dump shows only a part."""

from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
T = "2026-08-01T10:00:{:02d}Z"


def dump(*objects: Object) -> Object:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def job(hosts: int = 1, gpus: int = 8, **spec: Any) -> Object:
    container = {"name": "main", "image": "train:1", "resources": {"limits": {GPU: str(gpus)}}}
    template = {"metadata": {"labels": {"app": "train"}}, "spec": {"containers": [container]}}
    metadata = {"name": "train", "namespace": "team", "uid": "job", "creationTimestamp": T.format(0)}
    metadata["labels"] = spec.pop("labels", {})  # type: ignore[assignment]
    spec = {"parallelism": hosts, "completions": hosts, "template": template} | spec
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec, "status": {}}


def pod(index: int, status: Object, **spec: Any) -> Object:
    container = {"name": "main", "image": "train:1", "resources": {"limits": {GPU: "8"}}}
    metadata = {
        "name": f"train-{index}-abcd{index}",
        "namespace": "team",
        "uid": f"pod-{index}",
        "creationTimestamp": T.format(1),
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        "ownerReferences": [{"kind": "Job", "name": "train", "uid": "job"}],
    }
    body = {"containers": [container]} | spec
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body, "status": status}


def refused(message: str) -> Object:
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [said]}


def node(name: str, gpus: int = 8) -> Object:
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: str(gpus)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"allocatable": room}}


def workload(*conditions: Object) -> Object:
    owner = {"kind": "Job", "name": "train", "uid": "job"}
    metadata = {"name": "job-train-1", "namespace": "team", "ownerReferences": [owner]}
    body = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata}
    return body | {"spec": {"queueName": "research"}, "status": {"conditions": list(conditions)}}


def condition(type: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": T.format(5),
    }


QUEUED = {"suspend": True, "labels": {"kueue.x-k8s.io/queue-name": "research"}}


def kueue_has_no_quota_left() -> Object:
    said = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100, 8 more needed"
    return dump(job(2, **QUEUED), workload(condition("QuotaReserved", "False", "Pending", said)))


def kueue_never_grants_it() -> Object:
    said = "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu in flavor h100, request > maximum capacity (64 > 32)"
    return dump(job(8, **QUEUED), workload(condition("QuotaReserved", "False", "Pending", said)))


def kueue_quota_smaller_than_the_job() -> Object:
    local = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "spec": {"clusterQueue": "gpus"}}
    local["metadata"] = {"name": "research", "namespace": "team"}
    flavor = {"name": "h100", "resources": [{"name": GPU, "nominalQuota": "16"}]}
    group = {"coveredResources": [GPU], "flavors": [flavor]}
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": "gpus"}}
    queue["spec"] = {"resourceGroups": [group]}
    return dump(job(4, **QUEUED), local, queue, workload())


def kueue_without_the_queue() -> Object:
    local = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "spec": {"clusterQueue": "gpus"}}
    local["metadata"] = {"name": "serving", "namespace": "team"}
    said = condition("QuotaReserved", "False", "Inadmissible", "LocalQueue research doesn't exist")
    return dump(job(**QUEUED), local, workload(said))


def kueue_preempted_it() -> Object:
    said = condition(
        "Evicted",
        "True",
        "Preempted",
        "Preempted to accommodate a workload (UID: 1) due to prioritization in the ClusterQueue",
    )
    return dump(job(2, **QUEUED), workload(condition("QuotaReserved", "False", "Pending", "Preempted"), said))


def kueue_gave_up_waiting_for_pods() -> Object:
    said = condition("Evicted", "True", "PodsReadyTimeout", "Exceeded the PodsReady timeout team/job-train-1")
    return dump(job(2, **QUEUED), workload(said))


def nodes_not_in_the_dump() -> Object:
    said = "0/12 nodes are available: 12 Insufficient nvidia.com/gpu. preemption: 0/12 nodes are available"
    return dump(job(), pod(0, refused(said)))


def selector_without_nodes_in_the_dump() -> Object:
    said = "0/12 nodes are available: 12 node(s) didn't match Pod's node affinity/selector."
    return dump(job(), pod(0, refused(said), nodeSelector={"gpu-type": "h200"}))


def other_namespaces_not_in_the_dump() -> Object:
    said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
    return dump(job(), pod(0, refused(said)), node("a"), node("b"))


def events_have_expired() -> Object:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team", "namespace": "team"}}
    status = {"hard": {f"requests.{GPU}": "16"}, "used": {f"requests.{GPU}": "16"}}
    return dump(job(), quota | {"status": status}, node("a"), node("b"))


def volcano_gang() -> Object:
    group = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "PodGroup", "spec": {"minMember": 3}}
    group["metadata"] = {"name": "train", "namespace": "team"}
    told = job(3)
    told["spec"]["template"]["metadata"]["annotations"] = {"scheduling.k8s.io/group-name": "train"}
    return dump(told, group, node("a"), node("b"), *(pod(i, {"phase": "Pending"}) for i in range(3)))


def event(kind: str, name: str, reason: str, message: str, second: int = 10) -> Object:
    """A warning about the job or a pod."""
    about = {"kind": kind, "namespace": "team", "name": name}
    said = {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": T.format(second)}
    metadata = {"name": f"{name}.{second}", "namespace": "team"}
    return {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about} | said


def failed(name: str, second: int) -> Object:
    """A pod of index 0 that ended with a bare exit code."""
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": T.format(second)}
    status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
    found = pod(0, status, nodeName="a")
    found["metadata"] |= {"name": f"train-0-{name}", "uid": name, "creationTimestamp": T.format(second - 1)}
    return found


def selector_beside_a_control_plane() -> Object:
    said = (
        "0/4 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
        "3 node(s) didn't match Pod's node affinity/selector. preemption: 0/4 nodes are available"
    )
    return dump(job(), pod(0, refused(said), nodeSelector={"gpu-type": "h200"}))


def full_beside_other_pools() -> Object:
    said = (
        "0/40 nodes are available: 2 Insufficient nvidia.com/gpu, 30 node(s) didn't match Pod's node "
        "affinity/selector, 8 node(s) had untolerated taint(s)."
    )
    return dump(job(), pod(0, refused(said), nodeSelector={"pool": "research"}))


def tainted_gpus_by_the_message() -> Object:
    said = "0/5 nodes are available: 1 node(s) were unschedulable, 4 node(s) had untolerated taint {team: serving}."
    return dump(job(), pod(0, refused(said)))


def image_by_events_alone() -> Object:
    name = "train-0-abcd0"
    first = 'Failed to pull image "train:1": rpc error: code = NotFound desc = manifest unknown'
    return dump(
        job(),
        node("a"),
        pod(0, {"phase": "Pending"}, nodeName="a"),
        event("Pod", name, "Failed", first, 10),
        event("Pod", name, "BackOff", 'Back-off pulling image "train:1"', 20),
    )


REFUSED = 'Error creating: pods "train-0-x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu={}, used: requests.nvidia.com/gpu={}, limited: requests.nvidia.com/gpu=8'


def quota_by_the_event_alone() -> Object:
    return dump(job(), event("Job", "train", "FailedCreate", REFUSED.format(8, 8)))


def quota_too_small_by_the_event_alone() -> Object:
    return dump(job(gpus=16), event("Job", "train", "FailedCreate", REFUSED.format(16, 0)))


def gang_by_the_group_alone() -> Object:
    group = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup"}
    group["metadata"] = {"name": "train", "namespace": "team"}
    group["spec"] = {"schedulingPolicy": {"gang": {"minCount": 4}}}
    said = "pod group is unschedulable, minCount (4) cannot be satisfied: 2 scheduled, 1 remaining"
    group["status"] = {
        "conditions": [condition("PodGroupInitiallyScheduled", "False", "Unschedulable", said)]
    }
    member = {"schedulingGroup": {"podGroupName": "train"}}
    short = refused("0/9 nodes are available: 9 Insufficient nvidia.com/gpu.")
    return dump(job(4), group, *(pod(i, short, **member) for i in range(4)))


def failing_and_tried_again() -> Object:
    again = pod(0, {"phase": "Running"}, nodeName="a")
    again["metadata"]["creationTimestamp"] = T.format(50)
    return dump(job(), node("a"), failed("aaaaa", 10), failed("bbbbb", 30), again)


def image_that_runs_as_root() -> Object:
    said = "container has runAsNonRoot and image will run as root"
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": said}}
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": waiting}]}
    return dump(job(), node("a"), pod(0, status, nodeName="a"))


SCENARIOS: dict[Callable[[], Object], str] = {
    kueue_has_no_quota_left: "queue-waiting",
    kueue_never_grants_it: "never-fits",
    kueue_quota_smaller_than_the_job: "never-fits",
    kueue_without_the_queue: "queue-waiting",
    kueue_preempted_it: "preempted",
    kueue_gave_up_waiting_for_pods: "evicted",
    nodes_not_in_the_dump: "no-capacity",
    selector_without_nodes_in_the_dump: "node-selector",
    other_namespaces_not_in_the_dump: "no-capacity",
    events_have_expired: "quota-exceeded",
    volcano_gang: "gang-incomplete",
    selector_beside_a_control_plane: "node-selector",
    full_beside_other_pools: "no-capacity",
    tainted_gpus_by_the_message: "taint",
    image_by_events_alone: "image-pull",
    quota_by_the_event_alone: "quota-exceeded",
    quota_too_small_by_the_event_alone: "never-fits",
    gang_by_the_group_alone: "gang-incomplete",
    failing_and_tried_again: "user-error",
    image_that_runs_as_root: "user-error",
}
