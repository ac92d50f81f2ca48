"""A corner of a real cluster in which one thing goes wrong: a namespace and a pool of nodes of its own."""

import copy
import datetime
import http
import itertools
from collections.abc import Callable
from typing import Any

from tests.services.kube_api import ApiError, Object
from tests.services.kubernetes import HOLD, ControlPlane

Step = Callable[["Scene"], None]
GPU = "nvidia.com/gpu"
_CLUSTER_WIDE = ("/api/v1/nodes", "/api/v1/pods", "/apis/scheduling.k8s.io/v1/priorityclasses", "/apis/storage.k8s.io/v1/storageclasses")  # fmt: skip
_NAMESPACED = (
    "/apis/batch/v1/namespaces/{}/jobs",
    "/api/v1/namespaces/{}/events",
    "/api/v1/namespaces/{}/resourcequotas",
    "/api/v1/namespaces/{}/persistentvolumeclaims",
    "/api/v1/namespaces/{}/configmaps",
    "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/serviceaccounts",
    "/api/v1/namespaces/{}/services",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/scheduling.k8s.io/v1beta1/namespaces/{}/podgroups",
)


class Scene:
    """Makes nodes and jobs, and waits until the control plane has reacted to them."""

    def __init__(self, plane: ControlPlane) -> None:
        self.api, self.plane = plane.api, plane
        self.namespace = plane.new_namespace()
        self.nodes: list[str] = []
        self._cluster_wide: list[str] = []
        self._events = itertools.count()

    def node(self, gpus: int = 8, **how: Any) -> str:
        """A node of this scene's pool."""
        return self.pool(1, gpus, **how)[0]

    def pool(
        self,
        count: int,
        gpus: int = 8,
        labels: dict[str, str] | None = None,
        kwok: bool = True,
        **how: Any,
    ) -> list[str]:
        """So many nodes, once they are ready where kwok keeps them so: until then a job waits for that, not for its fault."""
        first = len(self.nodes)
        names = [f"{self.namespace}-{number}" for number in range(first, first + count)]
        own = {"pool": self.namespace}
        for name in names:
            self.plane.add_node(name, gpus=gpus, labels=own | (labels or {}), kwok=kwok, **how)
            self.nodes.append(name)
        if kwok:
            self.api.wait(
                "/api/v1/nodes",
                lambda nodes: {node["metadata"]["name"] for node in nodes if _ready(node)}.issuperset(names),
                labelSelector=f"pool={self.namespace}",
            )
        return names

    def job(self, name: str = "train", hosts: int = 1, pod: Object | None = None, **spec: Any) -> None:
        """An Indexed Job of so many hosts; `pod` changes its pod template, `spec` the Job itself."""
        template = {"metadata": {"labels": {"app": name}, "annotations": {}}, "spec": self.pod_spec()}
        template = merged(template, pod or {})
        labels = spec.pop("labels", {})
        body = {"parallelism": hosts, "completions": hosts, "completionMode": "Indexed", "template": template}
        metadata = {"name": name, "labels": labels}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body | spec}
        self.api.create(job, self.namespace)

    def pod_spec(self) -> Object:
        container = {"name": "main", "image": "registry.example/train:1", "resources": {"limits": {GPU: "8"}}}
        return {"restartPolicy": "Never", "nodeSelector": {"pool": self.namespace}, "containers": [container]}

    def make(self, version: str, kind: str, name: str, **fields: Any) -> Object:
        """Any other object; those of the cluster bear the namespace's name to be told apart."""
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}} | fields
        collection = self.api.path_of(body, self.namespace)
        if "/namespaces/" not in collection:
            self._cluster_wide.append(f"{collection}/{name}")
        return self.api.create(body, self.namespace)

    def running(self, count: int, job: str = "train") -> list[Object]:
        """Waits until so many pods of a job run."""
        return self.pods(lambda pods: sum(p["status"].get("phase") == "Running" for p in pods) >= count, job)

    def waiting(self, count: int = 1, job: str = "train") -> list[Object]:
        """Waits until the scheduler has said of so many pods that no node takes them."""
        return self.pods(lambda pods: sum(map(_unschedulable, pods)) >= count, job)

    def bound(self, count: int = 1, job: str = "train") -> list[Object]:
        """Waits until so many pods of a job have a node."""
        return self.pods(lambda pods: sum("nodeName" in p["spec"] for p in pods) >= count, job)

    def pods(self, until: Callable[[list[Object]], Any], job: str = "train") -> list[Object]:
        """The pods of a job as soon as `until` is true of them."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self.api.wait(path, until, labelSelector=f"batch.kubernetes.io/job-name={job}")

    def condition(self, *kinds: str, job: str = "train") -> None:
        """Waits until a job has one of these conditions."""
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        self.api.wait(
            path,
            lambda jobs: any(
                c["type"] in kinds and c["status"] == "True"
                for each in jobs
                if each["metadata"]["name"] == job
                for c in each.get("status", {}).get("conditions", ())
            ),
        )

    def event(self, *reasons: str) -> None:
        """Waits until the cluster has written an event with one of these reasons."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        self.api.wait(path, lambda events: any(each["reason"] in reasons for each in events))

    def say(self, pod: Object, status: Object) -> None:
        """Report a pod's status, as the kubelet of its node does; nothing of one that is gone.

        The Job's controller deletes the others of a Job as soon as one pod has failed it.
        """
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/status"
        try:
            self.api.patch(path, {"status": status})
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def tell(self, pod: Object, reason: str, message: str) -> None:
        """Write an event about a pod, as the kubelet of its node does."""
        about = {"kind": "Pod", "namespace": self.namespace}
        about |= {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        seen = {"firstTimestamp": now(), "lastTimestamp": now(), "count": 1, "type": "Warning"}
        source = {"component": "kubelet", "host": pod["spec"].get("nodeName", "")}
        fields = {"involvedObject": about, "reason": reason, "message": message, "source": source} | seen
        self.make("v1", "Event", f"{pod['metadata']['name']}.{next(self._events)}", **fields)

    def held(self, hosts: int = 1, **spec: Any) -> list[Object]:
        """A job whose pods have nodes and about which the test says what their kubelet would."""
        pod = merged({"metadata": {"annotations": {HOLD: "yes"}}}, spec.pop("pod", {}))
        self.pool(hosts)
        self.job(hosts=hosts, pod=pod, **spec)
        return sorted(self.bound(hosts), key=lambda each: index(each))

    def dump(self) -> Object:
        """What kubectl would print of the nodes and pods of the cluster and all else in the namespace."""
        paths = [*_CLUSTER_WIDE, *(path.format(self.namespace) for path in _NAMESPACED)]
        items = [item for path in paths for item in self.api.items(path)]
        return {"apiVersion": "v1", "kind": "List", "items": items}

    def close(self) -> None:
        """Remove what was made."""
        for path in (f"/api/v1/namespaces/{self.namespace}", *self._cluster_wide):
            self.api.delete(path)
        for name in self.nodes:
            self.api.delete(f"/api/v1/nodes/{name}")


def merged(base: Object, change: Object) -> Object:
    """`base` with the fields of `change`, objects merged and everything else replaced."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        inner = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if inner else copy.deepcopy(value)
    return result


def asks(**amounts: str | int) -> Object:
    """A change of the pod template: what its container asks for; `gpu`, `cpu`, `memory`."""
    named = {{"gpu": GPU}.get(name, name): str(value) for name, value in amounts.items()}
    resources = {"limits": named}
    return {"spec": {"containers": [{"name": "main", "image": "train:1", "resources": resources}]}}


def also(**fields: Any) -> Object:
    """A change of the pod template's spec."""
    return {"spec": fields}


def exits(code: int, after: str = "1ms") -> Object:
    """A change of the pod template: kwok ends its containers with this code."""
    return {
        "metadata": {"annotations": {"tradewind.test/run-for": after, "tradewind.test/exit-code": str(code)}}
    }


def waits(reason: str, message: str = "", restarts: int = 0, last: Object | None = None) -> Object:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [container(state, restarts, last)]}


def ended(code: int, message: str = "", reason: str = "Error", at: str = "") -> Object:
    """The status of a pod whose container has failed."""
    state = {
        "terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at or now()}
    }
    return {"phase": "Failed", "containerStatuses": [container(state)]}


def container(state: Object, restarts: int = 0, last: Object | None = None) -> Object:
    status = {"name": "main", "image": "train:1", "imageID": "", "ready": False, "restartCount": restarts}
    return status | {"state": state} | ({"lastState": last} if last else {})


def index(pod: Object) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def now(plus_s: int = 0) -> str:
    """The time as the API writes it."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=plus_s)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _ready(node: Object) -> bool:
    """As the node says, and as the scheduler reads it from the taints that the cluster takes away a moment later."""
    conditions = node.get("status", {}).get("conditions", ())
    taints = node["spec"].get("taints", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions) and not any(
        taint["key"].startswith("node.kubernetes.io/") for taint in taints
    )


def _unschedulable(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "PodScheduled" and c["status"] == "False" for c in conditions)
