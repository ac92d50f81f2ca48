"""Jobs that somebody holds back, that lack what they name, or whose pods are refused. All by the real control plane."""

import time
from typing import Any

from tests.launch.why.scenarios.scene import Scene, Step, also, asks
from tests.services.kube_api import ApiError


def suspended_by_hand(scene: Scene) -> None:
    scene.pool(1)
    scene.job(suspend=True)
    scene.condition("Suspended")


def suspended_for_kueue(scene: Scene) -> None:
    scene.pool(1)
    scene.job(suspend=True, labels={"kueue.x-k8s.io/queue-name": "research"})
    scene.condition("Suspended")


def gated(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(schedulingGates=[{"name": "example.com/data-staged"}]))
    scene.pods(lambda pods: pods and pods[0].get("status", {}).get("conditions"))


def nobody_schedules(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(schedulerName="batch-scheduler"))
    scene.pods(bool)


def claim(scene: Scene, name: str, storage_class: str | None) -> None:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec |= {} if storage_class is None else {"storageClassName": storage_class}
    scene.make("v1", "PersistentVolumeClaim", name, spec=spec)


def mounts_claim(name: str) -> dict[str, Any]:
    return also(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": name}}])


def claim_that_does_not_exist(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_without_a_class(scene: Scene) -> None:
    scene.pool(1)
    claim(scene, "dataset", "")
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_of_a_class_that_does_not_exist(scene: Scene) -> None:
    scene.pool(1)
    claim(scene, "dataset", "fast-ssd")
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def claim_for_which_there_is_no_volume(scene: Scene) -> None:
    name = f"local-{scene.namespace}"
    how = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    scene.make("storage.k8s.io/v1", "StorageClass", name, **how)
    scene.pool(1)
    claim(scene, "dataset", name)
    scene.job(pod=mounts_claim("dataset"))
    scene.waiting()


def no_such_service_account(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(serviceAccountName="trainer"))
    scene.event("FailedCreate")


def no_such_priority_class(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(priorityClassName="urgent"))
    scene.event("FailedCreate", "WorkloadCreated")


def pod_security(scene: Scene) -> None:
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    scene.api.patch(f"/api/v1/namespaces/{scene.namespace}", labels)
    scene.pool(1)
    scene.job()
    scene.event("FailedCreate")


def limit_range(scene: Scene) -> None:
    scene.make("v1", "LimitRange", "small", spec={"limits": [{"type": "Container", "max": {"cpu": "4"}}]})
    scene.pool(1)
    scene.job(pod=asks(cpu=8))
    scene.event("FailedCreate")


def here_only(scene: Scene) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}


RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


def webhook_out_of_order(scene: Scene) -> None:
    hook = {
        "name": "pods.policy.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/validate"},
        "rules": RULES,
        "namespaceSelector": here_only(scene),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    kind = "ValidatingWebhookConfiguration"
    scene.make("admissionregistration.k8s.io/v1", kind, scene.namespace, webhooks=[hook])
    scene.pool(1)
    scene.job()
    scene.event("FailedCreate")


def admission_policy(scene: Scene) -> None:
    version, name = "admissionregistration.k8s.io/v1", scene.namespace
    needs_owner = {
        "expression": "has(object.metadata.labels.owner)",
        "message": "every pod needs an owner label",
    }
    spec: dict[str, Any] = {"matchConstraints": {"resourceRules": RULES}, "validations": [needs_owner]}
    scene.make(version, "ValidatingAdmissionPolicy", name, spec=spec)
    bound = {
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": here_only(scene)},
    }
    scene.make(version, "ValidatingAdmissionPolicyBinding", name, spec=bound)
    scene.pool(1)
    probe = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": scene.pod_spec()}
    refused_at_last(scene, probe)
    scene.job()
    scene.event("FailedCreate")


def refused_at_last(scene: Scene, pod: dict[str, Any]) -> None:
    """A policy is in force some moments after it was made, and nothing tells when: ask until it is."""
    for _ in range(600):
        try:
            scene.api.create(pod, scene.namespace, dry_run=True)
        except ApiError:
            return
        time.sleep(0.1)
    raise TimeoutError("the policy refused nothing within a minute")


def no_such_runtime_class(scene: Scene) -> None:
    scene.pool(1)
    scene.job(pod=also(runtimeClassName="nvidia-cdi"))
    scene.event("FailedCreate")


def left_to_another_controller(scene: Scene) -> None:
    scene.pool(1)
    scene.job(managedBy="example.com/dispatcher")


SCENARIOS: dict[Step, str] = {
    suspended_by_hand: "suspended",
    suspended_for_kueue: "queue-waiting",
    gated: "scheduling-gate",
    nobody_schedules: "scheduler-missing",
    claim_that_does_not_exist: "volume-unbound",
    claim_without_a_class: "volume-unbound",
    claim_of_a_class_that_does_not_exist: "volume-unbound",
    claim_for_which_there_is_no_volume: "volume-unbound",
    no_such_service_account: "service-account",
    no_such_priority_class: "priority-missing",
    pod_security: "admission-denied",
    limit_range: "admission-denied",
    webhook_out_of_order: "admission-denied",
    admission_policy: "admission-denied",
    no_such_runtime_class: "admission-denied",
    left_to_another_controller: "unknown",
}
